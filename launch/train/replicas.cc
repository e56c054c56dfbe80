#include "launch/train/replicas.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <string>
#include <vector>

#include "runtime/base/check.h"
#include "runtime/base/error.h"

namespace strake::launch {

void require_equal_replicas(comm::Control& control, std::int64_t step, std::span<const ReplicaPart> parts) {
  constexpr std::size_t kDigits = 16;
  std::string mine;
  for (const ReplicaPart& part : parts) mine += fmt::format("{:0{}x}", part.fingerprint, kDigits);
  const std::vector<std::string> told = control.all_gather(mine);
  std::vector<std::string> differences;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    std::vector<std::size_t> ranks;
    for (std::size_t rank = 0; rank < told.size(); ++rank) {
      STRAKE_CHECK(told[rank].size() == mine.size(), "ranks compare the same parts");
      if (told[rank].compare(i * kDigits, kDigits, told[0], i * kDigits, kDigits) != 0) ranks.push_back(rank);
    }
    if (ranks.empty()) continue;
    differences.push_back(
        fmt::format("{} on rank{} {}", parts[i].name, ranks.size() == 1 ? "" : "s", fmt::join(ranks, ", ")));
  }
  if (differences.empty()) return;
  throw DivergenceError(fmt::format(
      "behind step {} the ranks no longer hold the same model: other than rank 0 has them are {}. Memory or "
      "a link has corrupted data, hosts compute differently (other processors or libraries), or the program "
      "has a mistake. No checkpoint was written: start again to go on from the last one, without the hosts "
      "of these ranks if it happens again",
      step, fmt::join(differences, "; ")));
}

}  // namespace strake::launch
