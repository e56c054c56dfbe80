// TinyModel: the folder that make_tiny_model.py makes: a tiny model in the files of Hugging Face, and what it computes.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "checkpoint/safetensors.h"
#include "models/formats/hugging_face.h"
#include "runtime/io/files.h"
#include "tests/support/scratch_folder.h"

namespace strake::test {

class TinyModel {
 public:
  static constexpr std::int64_t kBatch = 4;

  // "gpt2", "llama", "llama3", "mistral", "qwen2": MODELS there.
  explicit TinyModel(const std::string& model = "gpt2") {
    const std::string command =
        std::string(STRAKE_PYTHON3) + " " + STRAKE_TINY_MODEL + " " + folder_.path().string() + " " + model;
    if (std::system(command.c_str()) != 0) throw std::runtime_error("fails: " + command);
  }

  std::filesystem::path path(const std::string& name) const { return folder_.path() / name; }
  Files& files() { return files_; }

  models::TransformerShape shape() {
    return models::shape_from_hugging_face(read_file(files_, path("hf/config.json"), 1 << 20), "hf/config.json");
  }

  template <typename T>
  std::vector<T> golden(const std::string& name) {
    const auto source = checkpoint::Safetensors::open(files_, path("golden.safetensors"));
    const checkpoint::SafetensorsEntry& entry = *source.find(name);
    std::vector<T> values(static_cast<std::size_t>(entry.elems()));
    source.read(entry, 0, std::as_writable_bytes(std::span(values)));
    return values;
  }

 private:
  ScratchFolder folder_;
  PosixFiles files_;
};

}  // namespace strake::test
