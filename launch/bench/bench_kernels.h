// `strake bench kernels`: how long each operation of a config's training step takes, timed one by one while the program
// trains, beside the steps of the same run in which nothing is timed.
//
// The run lives in a folder of its own beside run.dir, which is removed afterwards. Several ranks train together; what
// is said is of rank 0's compute stream.
// Threads: the main thread. Errors: as `strake train`; ConfigError for --against.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace strake::launch {

struct BenchKernelsArguments {
  std::string config_path;
  std::vector<std::string> overrides;
  std::vector<std::string> command_line;
  std::int64_t warmup = 10;
  std::int64_t steps = 10;   // of each block: before, timed, after
  bool random_data = false;  // also if the config names data
  std::string against;       // an earlier output; empty: none
  bool json = false;
};

// Returns the exit code.
int run_bench_kernels(const BenchKernelsArguments& arguments);

}  // namespace strake::launch
