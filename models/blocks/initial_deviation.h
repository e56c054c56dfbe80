// How widely initial weights are spread.
#pragma once

#include <cmath>

#include "models/transformer_shape.h"

namespace strake::models {

inline constexpr double kInitialDeviation = 0.02;

// Projections that add to the residual stream start smaller, by the number of additions (GPT-2).
inline double residual_deviation(const TransformerShape& shape) {
  return kInitialDeviation / std::sqrt(2.0 * static_cast<double>(shape.layers));
}

}  // namespace strake::models
