// `strake plan`: what a run would take, for any number of ranks and for a GPU that need not be here. Takes neither the
// memory nor the data of the run, and starts no ranks.
// Threads: the main thread. Errors: ConfigError for what a run would refuse as well, and where nothing fits.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "launch/config.h"

namespace strake::launch {

struct PlanArguments {
  std::string config_path;
  std::vector<std::string> overrides;
  int ranks = 1;
  std::optional<DeviceChoice> device;  // else as run.device says
  std::uint64_t memory_bytes = 0;      // of each rank; 0: what the device has, if it is here
  bool json = false;
  bool print_schedule = false;  // behind the report for people
};

// Prints and returns the exit code.
int run_plan(const PlanArguments& arguments);

}  // namespace strake::launch
