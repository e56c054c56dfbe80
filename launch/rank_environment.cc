#include "launch/rank_environment.h"

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
