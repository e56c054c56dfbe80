// Writing one rank's file of a checkpoint, with a checksum of each chunk.
//
// Several threads may do so, each some of it at a time: assembling, checksumming and moving bytes to a file in memory
// cost a core more than a fast disk takes. Past the page cache (O_DIRECT) the disk is fed what it needs at once and
// nothing of the cache's is thrown out; where the file system has no such thing, it is written through the cache.
// Threads: the caller's, and those it starts, which end before it returns. Errors: IoError; any is final for this file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

#include "checkpoint/failpoint.h"
#include "checkpoint/h5_file.h"
#include "checkpoint/manifest.h"
#include "runtime/io/files.h"

namespace strake::checkpoint {

struct WriteOptions {
  std::uint64_t chunk_bytes = 1 << 20;  // of one checksum, and the least that loading reads
  int writers = 1;                      // threads that write, the caller's among them; >= 1
  bool direct_io = false;               // where the file system can
  // Written at once past the page cache, where every call waits for the disk: the whole chunks in it, at least one.
  std::uint64_t direct_move_bytes = 16 << 20;
};

// Writes the file at `path`, which must not exist: the image's own bytes and, at its payload offsets, `payloads`.
// Durable on return, but for its name in the folder. Failpoints are hit by the thread that writes the chunk.
FileRecord write_shard_file(Files& files, const std::filesystem::path& path, const H5Image& image,
                            std::span<const std::span<const std::byte>> payloads, const WriteOptions& options,
                            Failpoints* failpoints);

}  // namespace strake::checkpoint
