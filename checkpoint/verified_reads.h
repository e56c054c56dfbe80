// Reads a rank's part of a checkpoint into host memory, each byte once and each chunk checked: reading and verifying
// are one pass. Whether what was read may be used, all ranks decide behind it (checkpointer.h).
//
// Threads: `threads` of its own, which have ended when it returns.
// Errors: of the first chunk, in the order of files, that is not what was written: CorruptError naming file and chunk;
// IoError from the disk. The memory's content is undefined then.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

#include "checkpoint/load_plan.h"
#include "checkpoint/manifest.h"
#include "checkpoint/shard_file.h"
#include "runtime/io/files.h"

namespace strake::checkpoint {

// `parts[i]`: memory of what the rank would write as its i-th range. REQUIRES: plan_reads made `reads` of `manifest`.
ReadTotals read_verified(Files& files, const std::filesystem::path& folder, const Manifest& manifest,
                         std::span<const FileReads> reads, std::span<const std::span<std::byte>> parts, int threads);

}  // namespace strake::checkpoint
