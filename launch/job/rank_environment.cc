#include "launch/job/rank_environment.h"

#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <optional>
#include <string_view>

namespace strake::launch {
namespace {

std::optional<int> number(const char* variable) {
  const char* text = std::getenv(variable);
  if (text == nullptr) return std::nullopt;
  const std::string_view digits(text);
  int value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() || end != digits.data() + digits.size() || value < 0) return std::nullopt;
  return value;
}

// Tasks of the SLURM step that this process belongs to. SLURM_NTASKS is not asked: it is that of the allocation, and
// the shells of a batch script and of salloc have it too, where a plain `strake train` is one rank and right. Those
// shells are in no step, or in one with a reserved number (4294967290 and up, too large for an int: absent).
std::optional<int> slurm_step_tasks() {
  if (!number("SLURM_STEP_ID") && !number("SLURM_STEPID")) return std::nullopt;
  if (!number("SLURM_PROCID")) return std::nullopt;
  return number("SLURM_STEP_NUM_TASKS");
}

}  // namespace

RankEnvironment RankEnvironment::detect() {
  RankEnvironment out;
  const auto read = [&](Launcher launcher, const char* rank, const char* ranks, const char* local_rank,
                        const char* local_ranks) {
    const auto own = number(rank), all = number(ranks);
    if (!own || !all || *own >= *all) return false;
    out = {launcher, *own, *all, number(local_rank).value_or(0), number(local_ranks).value_or(1)};
    return true;
  };
  // mpirun inside a SLURM allocation sets both: it is what started us. A batch script's own shell has
  // SLURM_PROCID too, but no PMIX_RANK: there we are a plain process.
  if (read(Launcher::kMpirun, "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
           "OMPI_COMM_WORLD_LOCAL_SIZE")) {
    return out;
  }
  if (std::getenv("PMIX_RANK") != nullptr) {
    read(Launcher::kSrun, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE");
  }
  return out;
}

int share_of_cores(int local_ranks, int may_run_on, int online) {
  return std::max(1, std::min(may_run_on, online / std::max(1, local_ranks)));
}

int usable_cores(const RankEnvironment& environment) {
  cpu_set_t allowed;
  const int may_run_on = sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? CPU_COUNT(&allowed) : 1;
  return share_of_cores(environment.local_ranks, may_run_on, static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN)));
}

std::string missing_ranks(int world_size) {
  const auto say = [&](std::string_view launcher, int ranks, std::string_view remedy, std::string_view variable) {
    return fmt::format(
        "{} started {} of this program, but MPI sees {}: each would train alone. {}. If they are meant to, unset {}",
        launcher, ranks, world_size, remedy, variable);
  };
  // Open MPI's mpirun sets its own whatever it was started in, and may start its daemons as a SLURM step: it comes
  // first.
  if (const auto ranks = number("OMPI_COMM_WORLD_SIZE")) {
    if (*ranks <= world_size) return "";
    return say(
        "mpirun", *ranks,
        "This mpirun belongs to another MPI library than the one that the program is linked with (`strake info`): "
        "use that one's mpirun",
        "OMPI_COMM_WORLD_SIZE");
  }
  if (const auto tasks = slurm_step_tasks(); tasks && *tasks > world_size) {
    return say(
        "srun", *tasks,
        fmt::format("Start it with `srun --mpi=pmix -n {} strake train ...` (`srun --mpi=list` tells whether this "
                    "SLURM can), or with mpirun inside the allocation",
                    *tasks),
        "SLURM_STEP_NUM_TASKS");
  }
  const int pmi = std::max(number("PMI_SIZE").value_or(0), number("PMI_RANK").value_or(-1) + 1);
  if (pmi > world_size) {
    return say("A launcher of another MPI", pmi,
               fmt::format("Start it with Open MPI's: `mpirun --bind-to none -n {} strake train ...`", pmi),
               "PMI_SIZE and PMI_RANK");
  }
  if (const auto rank = number("PMIX_RANK"); rank && *rank >= world_size) {
    return say("A PMIx launcher", *rank + 1, "Start it with mpirun, or with `srun --mpi=pmix`", "PMIX_RANK");
  }
  return "";
}

std::string RankEnvironment::launcher_name() const {
  switch (launcher) {
    case Launcher::kPlain:
      return "plain";
    case Launcher::kMpirun:
      return "mpirun";
    case Launcher::kSrun:
      return "srun";
  }
  return "?";
}

}  // namespace strake::launch
