// ShardPlan: which rank writes which range of which tensor. A pure value, identical on all ranks.
//
// State that several ranks hold alike is laid in one line and cut into equal bytes, one piece a rank, at element
// boundaries and without regard to where tensors end. What only one rank holds, that rank writes.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/device/param_spec.h"

namespace strake::checkpoint {

// What a rank holds of one logical tensor: an entry of its TensorTable without the memory.
struct HeldRange {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<std::int64_t> global_shape;
  std::int64_t begin_elems = 0;
  std::int64_t elems = 0;
  bool replicated = true;

  bool operator==(const HeldRange&) const = default;
};

// A range that a rank writes.
struct PlannedRange {
  std::size_t entry = 0;         // index into what the rank holds
  std::int64_t begin_elems = 0;  // of the row-major logical tensor
  std::int64_t elems = 0;        // >= 1

  bool operator==(const PlannedRange&) const = default;
};

std::vector<HeldRange> held_ranges(const TensorTable& table);
// Between ranks.
std::string to_text(std::span<const HeldRange> ranges);
std::vector<HeldRange> held_ranges_from_text(std::string_view text);

// For each rank what it writes, in the order of its table. `held_by_rank[r]` is what rank r holds.
std::vector<std::vector<PlannedRange>> plan_shards(std::span<const std::vector<HeldRange>> held_by_rank);

}  // namespace strake::checkpoint
