// The small commands of `strake`; each prints to standard output and returns the exit code. Training is in
// launch/train.h. Threads: the main thread. Errors: thrown, for main() to map.
#pragma once

#include <filesystem>

#include "data/prepare.h"

namespace strake::launch {

int prepare_data(const data::PrepareOptions& options);

// `path` is a run folder, a folder of checkpoints, or (verify) one checkpoint.
int list_checkpoints(const std::filesystem::path& path);
// Reads every byte of each; throws CorruptError naming what is damaged in any.
int verify_checkpoints(const std::filesystem::path& path);

int show_info();
int show_keys();

}  // namespace strake::launch
