#include "checkpoint/staging.h"

#include <algorithm>
#include <cstdint>

namespace strake::checkpoint {
namespace {

// A load of a large state by a rank with a small shard goes through at least this much.
constexpr std::uint64_t kLeastBytes = 4 << 20;

}  // namespace

std::vector<Tensor> reserve_shard(Arena& arena, const TensorTable& table, std::span<const PlannedRange> planned) {
  std::vector<Tensor> shard;
  for (const PlannedRange& range : planned) {
    shard.push_back(Tensor::reserve(arena, table.entries[range.entry].view.dtype(), {range.elems}));
  }
  return shard;
}

Staging reserve_staging(Arena& host, const TensorTable& table, std::span<const PlannedRange> planned) {
  Staging staging;
  staging.shard = reserve_shard(host, table, planned);
  std::uint64_t table_bytes = 0, shard_bytes = 0;
  for (const TensorTable::Entry& entry : table.entries) table_bytes += entry.view.extent_bytes();
  if (!planned.empty()) {
    const Tensor &first = staging.shard.front(), &last = staging.shard.back();
    shard_bytes = last.offset_bytes() + last.extent_bytes() - first.offset_bytes();
  }
  const std::uint64_t wanted_bytes = std::clamp<std::uint64_t>(table_bytes, 1, kLeastBytes);
  staging.all =
      shard_bytes >= wanted_bytes
          ? Tensor(host, staging.shard.front().offset_bytes(), DType::kU8, {static_cast<std::int64_t>(shard_bytes)})
          : Tensor::reserve(host, DType::kU8, {static_cast<std::int64_t>(wanted_bytes)});
  return staging;
}

}  // namespace strake::checkpoint
