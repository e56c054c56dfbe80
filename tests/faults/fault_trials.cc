// fault_trials CLASS FIRST LAST: trials of one class, one seed after the other, a line of JSON each. Ends with 1 behind
// the first one that is not as it must be. tests/faults/run starts it, adds up, and says what the classes are.
#include <cstdio>
#include <filesystem>
#include <map>
#include <string>

#include "tests/faults/trial.h"

namespace strake::test {
namespace {

const std::map<std::string, TrialClass> kClasses = {
    {"kill", kill_a_rank},
    {"failpoint", kill_at_a_failpoint},
    {"job", kill_the_job},
    {"mpirun", kill_under_mpirun},
    {"retention", kill_in_retention},
    {"power", lose_power},
    {"power_call", lose_power_at_a_call},
    {"no_sync", lose_power_without_a_sync},
    {"damage", damage_the_newest},
    {"damage_several", damage_several},
    {"storage", fail_a_call},
    {"slow_disk", slow_the_disk},
    {"two_jobs", start_two_jobs},
    {"growth", save_two_hundred},
};

int run(const std::string& name, std::uint64_t first, std::uint64_t last, const TrialOptions& options) {
  const auto found = kClasses.find(name);
  if (found == kClasses.end()) {
    std::fprintf(stderr, "no class of trials is named %s\n", name.c_str());
    return 2;
  }
  bool wrong = false;
  const Report report = [&](const Trial& trial) {
    nlohmann::json line = trial.facts;
    line["class"] = trial.kind;
    line["seed"] = trial.seed;
    line["happened"] = trial.happened;
    if (!trial.wrong.empty()) line["wrong"] = trial.wrong;
    if (trial.silent) line["silent"] = true;
    std::puts(line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
    std::fflush(stdout);  // before the next fork
    wrong = wrong || !trial.wrong.empty();
  };
  for (std::uint64_t seed = first; seed <= last && !wrong; ++seed) found->second(seed, options, report);
  return wrong ? 1 : 0;
}

}  // namespace
}  // namespace strake::test

int main(int argc, char** argv) {
  const std::string name = argc > 1 ? argv[1] : "";
  if (name == "--live" && argc == 3) return strake::test::live_under_mpirun(argv[2]);
  if (argc < 4) {
    std::fprintf(stderr, "usage: fault_trials CLASS FIRST_SEED LAST_SEED [SECONDS that a disk stands still]\n");
    return 2;
  }
  strake::test::TrialOptions options;
  options.program = std::filesystem::read_symlink("/proc/self/exe");
  if (argc > 4) options.freeze_s = std::stod(argv[4]);
  return strake::test::run(name, std::stoull(argv[2]), std::stoull(argv[3]), options);
}
