// Verification: every byte of a checkpoint against its checksums, as fast as the disk gives them: several threads read,
// so that the next chunks are on their way while one is checked. One chunk of memory a thread.
//
// Threads: any; its own end before it returns. Errors: CorruptError naming the first damaged chunk in the order of the
// manifest, and how many more there are; IoError from the disk.
#pragma once

#include <filesystem>

#include "checkpoint/manifest.h"
#include "runtime/io/files.h"

namespace strake::checkpoint {

// REQUIRES: threads >= 1.
void check_every_byte(Files& files, const std::filesystem::path& folder, const Manifest& manifest, int threads);

}  // namespace strake::checkpoint
