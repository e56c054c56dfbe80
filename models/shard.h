// What of a model's state each rank keeps a part of, instead of all of it.
#pragma once

#include <cstdint>
#include <string_view>

namespace strake::models {

enum class Shard : std::uint8_t {
  kNone,
  kOptimizer,  // moments, and f32 weights beside bf16 ones; gradients are reduced into the part that a rank updates
};

constexpr std::string_view name_of(Shard shard) { return shard == Shard::kNone ? "none" : "optimizer"; }

}  // namespace strake::models
