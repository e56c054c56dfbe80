// `strake bench checkpoint`: what checkpoints cost a config's training, strategy by strategy and folder by folder,
// measured by the program's own training loop; how long they take to become durable and to be loaded again; and how
// often to keep one.
//
// Each run is short and in a folder of its own, which is removed afterwards; every repeat has each run once, in a
// random order, and one without checkpoints. Loading is of the run's newest checkpoint, once from the page cache and
// once, where the file system is not memory, without. Threads: the main thread. Errors: as `strake train`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "launch/bench/checkpoint_figures.h"

namespace strake::launch {

struct BenchCheckpointArguments {
  std::string config_path;
  std::vector<std::string> overrides;
  std::vector<std::string> command_line;
  std::vector<std::string> strategies = {"sync", "pinned", "lazy", "device"};
  std::vector<std::string> folders;  // where runs lie; empty: beside run.dir
  CheckpointBlocks blocks;
  std::int64_t repeats = 3;
  std::vector<double> mtbf_hours = {1, 24, 168};
  double restart_s = 60;
  bool random_data = false;  // also if the config names data
  bool json = false;
};

// Returns the exit code.
int run_bench_checkpoint(const BenchCheckpointArguments& arguments);

}  // namespace strake::launch
