// TinyGpt2: the folder that make_tiny_gpt2.py makes: a tiny GPT-2 in the files of Hugging Face, and what it computes.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "checkpoint/safetensors.h"
#include "models/transformer.h"
#include "runtime/io/files.h"
#include "tests/support/scratch_folder.h"

namespace strake::test {

class TinyGpt2 {
 public:
  static inline const models::TransformerShape kShape = models::gpt2_shape(2, 12, 3, 19, 5);
  static constexpr std::int64_t kBatch = 4;

  TinyGpt2() {
    const std::string command = std::string(STRAKE_PYTHON3) + " " + STRAKE_TINY_GPT2 + " " + folder_.path().string();
    if (std::system(command.c_str()) != 0) throw std::runtime_error("fails: " + command);
  }

  std::filesystem::path path(const std::string& name) const { return folder_.path() / name; }
  Files& files() { return files_; }

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
