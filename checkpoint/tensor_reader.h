// TensorReader: any range of a checkpoint's tensors as bytes, from whatever files hold it, without a device and without
// the rest in memory. What it gives out was checked against the manifest.
//
// It keeps the chunks that it read last, kChunks of them at most: a reader of many small tensors that lie near each
// other reads each chunk about once.
// Threads: one. Errors: CorruptError naming file and chunk; IoError from the disk.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <span>

#include "checkpoint/reader.h"
#include "checkpoint/shard_file.h"
#include "runtime/io/files.h"

namespace strake::checkpoint {

class TensorReader {
 public:
  static constexpr std::size_t kChunks = 4;

  // Both outlive this object. REQUIRES: the files have their sizes (check_sizes).
  TensorReader(Files& files, const FoundCheckpoint& found) : files_(files), found_(found) {}

  // Fills `out` with elements from `begin_elems` on. REQUIRES: `tensor` is of the checkpoint's manifest; whole
  // elements, all in range.
  void read(const TensorRecord& tensor, std::int64_t begin_elems, std::span<std::byte> out);

 private:
  struct Kept {
    std::size_t file, chunk;
    std::unique_ptr<ChunkReader> reader;
    std::span<const std::byte> bytes;  // the reader's
  };

  std::span<const std::byte> chunk(std::size_t file, std::size_t chunk);

  Files& files_;
  const FoundCheckpoint& found_;
  std::list<Kept> kept_;  // the last used first
};

}  // namespace strake::checkpoint
