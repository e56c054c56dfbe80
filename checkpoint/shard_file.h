// One rank's file of a checkpoint, read only through its checksums.
//
// Errors: IoError from the disk; CorruptError naming file and chunk where the bytes are not the ones written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "checkpoint/manifest.h"
#include "runtime/device/device.h"
#include "runtime/device/param_spec.h"
#include "runtime/io/files.h"

namespace strake::checkpoint {

// Reads whole chunks of a file and hands them out only if size and checksum are right.
class ChunkReader {
 public:
  // `record` outlives this object.
  ChunkReader(Files& files, const std::filesystem::path& folder, const FileRecord& record);
  // Valid until the next call. REQUIRES: chunk < record.chunk_crcs.size().
  std::span<const std::byte> read(std::size_t chunk);
  // Chunk `first` and those behind it that `bytes` holds, which are whole; undefined on errors. Any thread.
  void read_into(std::span<std::byte> bytes, std::size_t first) const;

 private:
  const FileRecord& record_;
  std::unique_ptr<File> file_;
  std::vector<std::byte> buffer_;
};

// Is the file there with its exact size?
void check_size(Files& files, const std::filesystem::path& folder, const FileRecord& record);
// Is every file?
void check_sizes(Files& files, const std::filesystem::path& folder, const Manifest& manifest);

struct ReadTotals {
  std::uint64_t bytes = 0;  // from files
  std::size_t files = 0;
};

// Fills the tensors of the table from whatever shards hold them; bytes are checked as they are read. `staging` is host
// memory of any size. Returns when the tensors are complete. REQUIRES: the manifest covers the table
// (compatibility.h); nothing enqueued anywhere still uses tensors or staging.
ReadTotals load_tensors(Files& files, const std::filesystem::path& folder, const Manifest& manifest,
                        const TensorTable& table, Stream& stream, const Tensor& staging);

}  // namespace strake::checkpoint
