// LoadPlan: which bytes of a checkpoint's files each rank reads, and where they belong. A pure value.
//
// A rank reads what it would write (ShardPlan) if it saved: loading is saving backwards. So every byte of the state is
// read by one rank, whatever world has written it and in which cuts, a rank opens only the files that hold its part,
// and that part fits in the memory which its saves go through. Chunks are read whole, since a checksum covers a chunk;
// at the ends of a range two ranks may need the same one. Chunks in which nobody's part lies (HDF5's own bytes) fall to
// a rank that reads the file anyway: together the ranks read every byte of every file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "checkpoint/manifest.h"
#include "checkpoint/shard_plan.h"

namespace strake::checkpoint {

// Bytes of a file that belong at some place of a rank's part of the state.
struct ReadRange {
  std::uint64_t offset_bytes = 0;  // in the file
  std::uint64_t length_bytes = 0;
  std::size_t planned = 0;          // index into what the rank would write
  std::uint64_t planned_bytes = 0;  // where in that

  bool operator==(const ReadRange&) const = default;
};

// What a rank reads of one file.
struct FileReads {
  std::size_t file = 0;             // index into Manifest::files
  std::vector<std::size_t> chunks;  // ascending; of an empty file none
  std::vector<ReadRange> ranges;    // by offset, inside of these chunks; they share no byte

  bool operator==(const FileReads&) const = default;
};

// For rank `rank`, in the order of files. `held_by_rank` and `planned_by_rank` are those of the world that loads, as
// plan_shards has them. REQUIRES: names, dtypes and shapes are those of the manifest (compatibility.h).
std::vector<FileReads> plan_reads(const Manifest& manifest, std::span<const std::vector<HeldRange>> held_by_rank,
                                  std::span<const std::vector<PlannedRange>> planned_by_rank, std::size_t rank);

}  // namespace strake::checkpoint
