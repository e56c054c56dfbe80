// SafetensorsSetWriter: tensors in one safetensors file or, where that would be too large, in several with an index, by
// the names that Hugging Face's programs look for: `model.safetensors`, or `model-00001-of-00003.safetensors` and
// `model.safetensors.index.json`.
//
// Nothing in the folder changes its meaning before every tensor is written; then what an earlier set has left there is
// removed, since readers would take it for this one. A crash in between leaves a set that readers refuse, or one of the
// two whole. No memory but what append() is given.
// Threads: one. Errors: IoError from the disk.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/safetensors.h"
#include "runtime/io/files.h"

namespace strake::checkpoint {

// How many of the specs go to each file, in their order: as many as `max_file_bytes` of tensors allow, at least one.
std::vector<std::size_t> cut_into_files(std::span<const SafetensorsSpec> specs, std::uint64_t max_file_bytes);

class SafetensorsSetWriter {
 public:
  // Takes the disk space of all files in `folder`. REQUIRES: as SafetensorsWriter; at least one spec.
  SafetensorsSetWriter(Files& files, const std::filesystem::path& folder, std::span<const SafetensorsSpec> specs,
                       std::uint64_t max_file_bytes, const std::map<std::string, std::string>& metadata = {});

  // The next bytes of the tensors, in the order of the specs. REQUIRES: of one tensor.
  void append(std::span<const std::byte> bytes);
  // The set is whole and durable when this returns. REQUIRES: every byte was appended.
  void finish();

  // What a reader opens: the file, or the index.
  const std::filesystem::path& entry() const { return entry_; }
  std::size_t file_count() const { return parts_.size(); }

 private:
  struct Part {
    std::string name;
    std::uint64_t left_bytes;  // to be appended
    std::unique_ptr<SafetensorsWriter> writer;
  };

  bool is_of_an_earlier_set(const std::string& name) const;

  Files& files_;
  const std::filesystem::path folder_;
  std::filesystem::path entry_;
  std::string index_;  // empty: one file
  std::vector<Part> parts_;
  std::size_t at_ = 0;  // which part is written
};

}  // namespace strake::checkpoint
