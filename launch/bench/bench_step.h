// `strake bench step`: how fast a config's training step is, measured by the program's own training loop
// (launch/train/rank_run.cc) with the report of each step read through its hooks.
//
// The run lives in a folder of its own beside run.dir, which is removed afterwards, and writes no checkpoints and no
// held-out losses unless the command line asks for them. Repeats are blocks of one run behind one warm-up: what
// differs between them is the machine (clocks, temperature, other work), not the choices made at start; start the
// command again for those.
// Threads: the main thread. Errors: as `strake train`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "launch/bench/step_blocks.h"

namespace strake::launch {

struct BenchStepArguments {
  std::string config_path;
  std::vector<std::string> overrides;
  std::vector<std::string> command_line;
  std::int64_t warmup = 10;
  std::int64_t steps = 30;  // of each repeat
  std::int64_t repeats = 3;
  bool random_data = false;  // also if the config names data
  Communication communication = Communication::kReal;
  bool json = false;
};

// Returns the exit code.
int run_bench_step(const BenchStepArguments& arguments);

}  // namespace strake::launch
