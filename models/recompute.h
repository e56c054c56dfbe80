// What forward does not keep for backward, which computes it again. No policy changes a bit of a result.
#pragma once

#include <cstdint>

namespace strake::models {

enum class Recompute : std::uint8_t {
  kNone,
  kNormActivation,  // outputs of norms and of the MLP's activation: bound by memory, cheap to repeat
  kBlock,           // all of a layer but its input
};

}  // namespace strake::models
