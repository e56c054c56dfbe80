// What forward does not keep for backward, which computes it again. No policy changes a bit of a result.
#pragma once

#include <cstdint>
#include <string_view>

namespace strake::models {

enum class Recompute : std::uint8_t {
  kNone,
  kNormActivation,  // outputs of norms and of the MLP's activation: bound by memory, cheap to repeat
  kBlock,           // all of a layer but its input
};

constexpr std::string_view name_of(Recompute policy) {
  switch (policy) {
    case Recompute::kNone:
      return "none";
    case Recompute::kNormActivation:
      return "norm_activation";
    case Recompute::kBlock:
      return "block";
  }
  return "";
}

}  // namespace strake::models
