// Safetensors: the file format in which other programs exchange weights. Bytes only: what a tensor means
// is said by models/.
//
//   8 bytes   length of the header, little-endian
//   header    JSON: {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, ...,
//             "__metadata__": {"key": "text"}}; offsets count from the end of the header
//   data      the tensors, row-major, little-endian, adjoining, in any order
//
// The format has no checksum. What can be proven is proven before a tensor is handed out: every range lies inside
// the file, each byte belongs to one tensor, sizes agree with shape and dtype, no name stands twice.
//
// Threads: one. Errors: CorruptError naming file, tensor and remedy; IoError from the disk.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/dtype.h"
#include "runtime/io/files.h"

namespace strake::checkpoint {

inline constexpr std::string_view kSafetensorsName = "model.safetensors";
inline constexpr std::uint64_t kMaxSafetensorsHeaderBytes = 100'000'000;  // the format's own bound

struct SafetensorsEntry {
  std::string name;
  std::string dtype;  // as the format writes it: "F32"
  std::vector<std::int64_t> shape;
  std::size_t file = 0;            // index of the file that holds it
  std::uint64_t offset_bytes = 0;  // in that file
  std::uint64_t size_bytes = 0;

  std::int64_t elems() const;
  bool operator==(const SafetensorsEntry&) const = default;
};

// The tensors of one header. `header` is the JSON, `file_bytes` the size of the whole file, `path` for messages.
// Pure, so that it can be fuzzed. Sorted by name.
std::vector<SafetensorsEntry> parse_safetensors_header(std::string_view header, std::uint64_t file_bytes,
                                                       const std::string& path);

// One file, or the files of a sharded set read as one.
class Safetensors {
 public:
  // `path`: a file; an index (`*.index.json`) of several files beside it; or a folder that holds `model.safetensors`
  // or `model.safetensors.index.json`. Throws ConfigError if the folder has neither. `files` outlives this object.
  static Safetensors open(Files& files, const std::filesystem::path& path);

  const std::vector<SafetensorsEntry>& entries() const { return entries_; }  // by name
  const SafetensorsEntry* find(std::string_view name) const;                 // nullptr: none
  const std::filesystem::path& path_of(const SafetensorsEntry& entry) const { return files_[entry.file]->path(); }

  // Bytes [begin_bytes, begin_bytes + out.size()) of the tensor. REQUIRES: in range.
  void read(const SafetensorsEntry& entry, std::uint64_t begin_bytes, std::span<std::byte> out) const;
  // Elements [begin_elems, begin_elems + out.size()) as f32: exact. CorruptError naming the dtype unless it is F32, F16
  // or BF16. REQUIRES: in range.
  void read_f32(const SafetensorsEntry& entry, std::int64_t begin_elems, std::span<float> out) const;

 private:
  void add_file(Files& files, const std::filesystem::path& path);
  void add_index(Files& files, const std::filesystem::path& path);
  void sort();

  std::vector<std::unique_ptr<File>> files_;
  std::vector<SafetensorsEntry> entries_;
};

struct SafetensorsSpec {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;
};

// Writes one file, tensor after tensor, under a temporary name; finish() publishes it.
class SafetensorsWriter {
 public:
  // Takes the disk space of the whole file. IoError if there is not as much. REQUIRES: names are distinct UTF-8;
  // `files` outlives this object.
  SafetensorsWriter(Files& files, const std::filesystem::path& path, std::span<const SafetensorsSpec> specs,
                    const std::map<std::string, std::string>& metadata = {});
  ~SafetensorsWriter();  // removes what was not published
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

  // The next bytes of the data, in the order of the specs; pieces need not be whole tensors.
  void append(std::span<const std::byte> bytes);
  // The file is whole, durable and has its name when this returns. REQUIRES: every byte was appended.
  void finish();

 private:
  void discard();

  Files& files_;
  std::filesystem::path path_, temporary_;
  std::unique_ptr<File> file_;  // null: published
  std::uint64_t at_ = 0, size_bytes_ = 0;
};

}  // namespace strake::checkpoint
