// Learning rate by step: linear warm-up, then half a cosine down to a floor (Loshchilov and Hutter 2017).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>

namespace strake::models {

struct CosineSchedule {
  double peak;
  double floor;
  std::int64_t warmup_steps;
  std::int64_t total_steps;

  // Rate of optimizer step `step`, from 0.
  double at(std::int64_t step) const {
    if (step < warmup_steps) return peak * static_cast<double>(step + 1) / static_cast<double>(warmup_steps);
    if (step >= total_steps) return floor;
    const double progress = static_cast<double>(step - warmup_steps) /
                            static_cast<double>(std::max<std::int64_t>(1, total_steps - warmup_steps));
    return floor + 0.5 * (peak - floor) * (1 + std::cos(std::numbers::pi * progress));
  }
};

}  // namespace strake::models
