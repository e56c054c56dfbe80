// Trial: one fault, and what the next start made of it. A line of JSON in the log of tests/faults/run.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

namespace strake::test {

struct Trial {
  std::string kind;        // of fault: the class in docs/reliability.md
  std::uint64_t seed = 0;  // repeats it, as far as the moment of a kill can be repeated
  bool happened = true;    // false: the fault never came, for what it was to meet had ended before
  bool silent = false;     // wrong bytes were taken for right, or durable ones were lost
  std::string wrong = {};  // what is not as it must be; empty: nothing
  nlohmann::json facts = nlohmann::json::object();
};

using Report = std::function<void(const Trial&)>;
struct TrialOptions {
  double freeze_s = 0.3;  // for which a disk stands still
  std::string program;    // this one, for mpirun
};
using TrialClass = void (*)(std::uint64_t seed, const TrialOptions& options, const Report& report);

// kill_trials.cc
void kill_a_rank(std::uint64_t seed, const TrialOptions& options, const Report& report);
void kill_at_a_failpoint(std::uint64_t seed, const TrialOptions& options, const Report& report);
void kill_the_job(std::uint64_t seed, const TrialOptions& options, const Report& report);
void kill_under_mpirun(std::uint64_t seed, const TrialOptions& options, const Report& report);
void kill_in_retention(std::uint64_t seed, const TrialOptions& options, const Report& report);
int live_under_mpirun(const std::string& board_file);
// power_trials.cc
void lose_power(std::uint64_t seed, const TrialOptions& options, const Report& report);
void lose_power_at_a_call(std::uint64_t seed, const TrialOptions& options, const Report& report);
void lose_power_without_a_sync(std::uint64_t seed, const TrialOptions& options, const Report& report);
// damage_trials.cc
void damage_the_newest(std::uint64_t seed, const TrialOptions& options, const Report& report);
void damage_several(std::uint64_t seed, const TrialOptions& options, const Report& report);
// storage_trials.cc
void fail_a_call(std::uint64_t seed, const TrialOptions& options, const Report& report);
void slow_the_disk(std::uint64_t seed, const TrialOptions& options, const Report& report);
void start_two_jobs(std::uint64_t seed, const TrialOptions& options, const Report& report);
void save_two_hundred(std::uint64_t seed, const TrialOptions& options, const Report& report);

}  // namespace strake::test
