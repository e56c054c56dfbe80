#include "checkpoint/shard_plan.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <tuple>

#include "runtime/base/check.h"

namespace strake::checkpoint {
namespace {

using Json = nlohmann::json;

}  // namespace

std::vector<HeldRange> held_ranges(const TensorTable& table) {
  std::vector<HeldRange> ranges;
  for (const TensorTable::Entry& entry : table.entries) {
    ranges.push_back(
        {entry.name, entry.view.dtype(), entry.global_shape, entry.begin_elems, entry.view.elems(), entry.replicated});
  }
  return ranges;
}

std::string to_text(std::span<const HeldRange> ranges) {
  Json list = Json::array();
  for (const HeldRange& range : ranges) {
    list.push_back({range.name, static_cast<int>(range.dtype), range.global_shape, range.begin_elems, range.elems,
                    range.replicated});
  }
  return list.dump();
}

std::vector<HeldRange> held_ranges_from_text(std::string_view text) {
  std::vector<HeldRange> ranges;
  for (const Json& item : Json::parse(text)) {
    ranges.push_back({item.at(0).get<std::string>(), static_cast<DType>(item.at(1).get<int>()),
                      item.at(2).get<std::vector<std::int64_t>>(), item.at(3).get<std::int64_t>(),
                      item.at(4).get<std::int64_t>(), item.at(5).get<bool>()});
  }
  return ranges;
}

std::vector<std::vector<PlannedRange>> plan_shards(std::span<const std::vector<HeldRange>> held_by_rank) {
  // Who holds each replicated range, and where in its own table.
  struct Owner {
    std::size_t rank;
    std::size_t entry;
  };
  std::map<std::tuple<std::string, std::int64_t, std::int64_t>, std::vector<Owner>> owners;
  std::vector<std::vector<PlannedRange>> plan(held_by_rank.size());
  for (std::size_t rank = 0; rank < held_by_rank.size(); ++rank) {
    for (std::size_t entry = 0; entry < held_by_rank[rank].size(); ++entry) {
      const HeldRange& held = held_by_rank[rank][entry];
      if (held.replicated) {
        owners[{held.name, held.begin_elems, held.elems}].push_back({rank, entry});
      } else {
        plan[rank].push_back({entry, held.begin_elems, held.elems});
      }
    }
  }

  // Ranges with the same owners form one line of bytes, in the order of the first owner's table.
  std::map<std::vector<std::size_t>, std::vector<std::vector<Owner>>> lines;
  for (const auto& [range, range_owners] : owners) {
    std::vector<std::size_t> ranks;
    for (const Owner& owner : range_owners) ranks.push_back(owner.rank);
    lines[ranks].push_back(range_owners);
  }
  for (auto& [ranks, line] : lines) {
    std::sort(line.begin(), line.end(), [](const auto& a, const auto& b) { return a.front().entry < b.front().entry; });
    const auto held_at = [&](const std::vector<Owner>& range) -> const HeldRange& {
      return held_by_rank[range.front().rank][range.front().entry];
    };
    std::uint64_t total_bytes = 0;
    for (const auto& range : line) {
      total_bytes += static_cast<std::uint64_t>(held_at(range).elems) * size_bytes(held_at(range).dtype);
    }
    const std::uint64_t ranks_of_line = ranks.size();
    // Piece p starts at byte p * total / ranks of the line; written so that it cannot overflow.
    const auto cut = [&](std::uint64_t p) {
      return total_bytes / ranks_of_line * p + total_bytes % ranks_of_line * p / ranks_of_line;
    };
    std::uint64_t begin_bytes = 0;  // of the range in the line
    for (const auto& range : line) {
      const HeldRange& held = held_at(range);
      const std::uint64_t elem_bytes = size_bytes(held.dtype);
      const auto elems = static_cast<std::uint64_t>(held.elems);
      // The elements of this range that start before byte `at` of the line.
      const auto elems_before = [&](std::uint64_t at) {
        return at <= begin_bytes ? 0 : std::min(elems, (at - begin_bytes + elem_bytes - 1) / elem_bytes);
      };
      for (std::uint64_t p = 0; p < ranks_of_line; ++p) {
        const std::uint64_t first = elems_before(cut(p));
        const std::uint64_t last = p + 1 == ranks_of_line ? elems : elems_before(cut(p + 1));
        if (first < last) {
          plan[range[p].rank].push_back({range[p].entry, held.begin_elems + static_cast<std::int64_t>(first),
                                         static_cast<std::int64_t>(last - first)});
        }
      }
      begin_bytes += elems * elem_bytes;
    }
  }
  for (std::vector<PlannedRange>& ranges : plan) {
    std::sort(ranges.begin(), ranges.end(), [](const PlannedRange& a, const PlannedRange& b) {
      return std::tie(a.entry, a.begin_elems) < std::tie(b.entry, b.begin_elems);
    });
  }
  return plan;
}

}  // namespace strake::checkpoint
