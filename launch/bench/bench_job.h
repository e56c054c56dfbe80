// What benches of training steps have in common: the config as the user means it, and a run of it that leaves nothing
// behind.
// Threads: the training thread. Errors: ConfigError; AgreedError; as data::TokenFileWriter.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "comm/control.h"
#include "launch/config.h"
#include "runtime/io/files.h"

namespace strake::launch {

// What a step does not need is off unless `overrides` have it. `random_data`: also if the config names data.
Config load_bench_config(const std::string& path, const std::vector<std::string>& overrides, bool random_data);

// A new folder beside run.dir; rank 0 makes and removes it, for all. A bench that is killed leaves it behind.
class BenchFolder {
 public:
  // Collective.
  BenchFolder(Files& files, const Config& config, comm::Control& control);
  ~BenchFolder();
  BenchFolder(const BenchFolder&) = delete;
  BenchFolder& operator=(const BenchFolder&) = delete;

  // `config` for a run of so many steps in this folder, with the random tokens that it asks for. Collective.
  Config run_of(const Config& config, std::int64_t steps, comm::Control& control) const;

 private:
  Files& files_;
  bool leads_;
  std::filesystem::path path_;
};

// Throws AgreedError if `signal`, known to all ranks, is one: nothing was measured.
void end_if_stopped_by(int signal);

}  // namespace strake::launch
