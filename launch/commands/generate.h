// `strake generate`: text from trained weights.
//
// Runs the training forward pass on one sequence for every new token: slow and simple, and the same code
// that was trained. Threads: the main thread. Errors: thrown, for main() to map.
#pragma once

#include <cstdint>
#include <string>

#include "launch/config.h"

namespace strake::launch {

struct GenerateArguments {
  std::string path;           // a run folder (its newest checkpoint) or one checkpoint's folder
  std::string prompt = "\n";  // at least one token
  std::int64_t tokens = 256;
  double temperature = 0.8;  // 0: always the likeliest
  std::uint64_t seed = 1;
  DeviceChoice device = DeviceChoice::kAuto;
};

// Prints the prompt and what follows to standard output as it is made. Returns the exit code.
int run_generate(const GenerateArguments& arguments);

}  // namespace strake::launch
