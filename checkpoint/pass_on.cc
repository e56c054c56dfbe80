#include "checkpoint/pass_on.h"

#include <algorithm>
#include <map>
#include <memory>
#include <string_view>
#include <tuple>

#include "runtime/base/check.h"

namespace strake::checkpoint {
namespace {

// Who holds a range, and as which entry of its table.
using Holders = std::map<std::size_t, std::size_t>;

std::map<std::tuple<std::string_view, std::int64_t, std::int64_t>, Holders> holders_of(
    std::span<const std::vector<HeldRange>> held_by_rank) {
  std::map<std::tuple<std::string_view, std::int64_t, std::int64_t>, Holders> holders;
  for (std::size_t rank = 0; rank < held_by_rank.size(); ++rank) {
    for (std::size_t entry = 0; entry < held_by_rank[rank].size(); ++entry) {
      const HeldRange& held = held_by_rank[rank][entry];
      if (held.replicated) holders[{held.name, held.begin_elems, held.elems}].emplace(rank, entry);
    }
  }
  return holders;
}

}  // namespace

SharedRanges shared_ranges(std::span<const std::vector<HeldRange>> held_by_rank,
                           std::span<const std::vector<PlannedRange>> planned_by_rank, std::size_t rank) {
  const auto all_holders = holders_of(held_by_rank);
  SharedRanges shared;
  std::map<std::vector<std::size_t>, std::size_t> numbers;  // of lists of holders
  for (std::size_t reader = 0; reader < planned_by_rank.size(); ++reader) {
    for (const PlannedRange& planned : planned_by_rank[reader]) {
      const HeldRange& held = held_by_rank[reader][planned.entry];
      if (!held.replicated) continue;
      const Holders& holders = all_holders.at({held.name, held.begin_elems, held.elems});
      if (holders.size() == 1) continue;
      std::vector<std::size_t> ranks;
      for (const auto& [holder, entry] : holders) ranks.push_back(holder);
      const auto [at, is_new] = numbers.emplace(ranks, shared.holders.size());
      if (is_new) shared.holders.push_back(ranks);
      const auto mine = holders.find(rank);
      if (mine == holders.end()) continue;
      shared.ranges.push_back({at->second, reader, mine->second, planned.begin_elems, planned.elems});
    }
  }
  return shared;
}

void pass_on(const SharedRanges& shared, const TensorTable& table, Exchange exchange) {
  const auto rank = static_cast<std::size_t>(exchange.communicator.rank());
  const auto ranks = static_cast<std::size_t>(exchange.communicator.size());
  std::vector<std::unique_ptr<comm::Communicator>> parts(shared.holders.size());
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (shared.holders[i].size() == ranks) continue;
    const bool among = std::ranges::binary_search(shared.holders[i], rank);
    parts[i] = exchange.communicator.split(among ? 0 : -1, static_cast<int>(rank));
  }
  for (const SharedRange& range : shared.ranges) {
    const std::vector<std::size_t>& holders = shared.holders[range.holders];
    comm::Communicator& group = parts[range.holders] != nullptr ? *parts[range.holders] : exchange.communicator;
    const auto root = std::ranges::lower_bound(holders, range.reader) - holders.begin();
    const TensorTable::Entry& entry = table.entries[range.entry];
    group.broadcast(exchange.stream, {"pass on checkpoint", Phase::kCheckpoint},
                    entry.view.flat(range.begin_elems - entry.begin_elems, range.elems), static_cast<int>(root));
  }
  exchange.stream.synchronize();
}

}  // namespace strake::checkpoint
