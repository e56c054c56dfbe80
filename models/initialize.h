// Initial weights: f(seed, parameter name, global element index), whatever the ranks and the layout.
#pragma once

#include <cstdint>

#include "runtime/device/device.h"
#include "runtime/device/param_spec.h"

namespace strake::models {

// Elements that `staging` must hold: of the largest parameter.
std::int64_t initial_staging_elems(const ParamLayout& layout);

// Fills `weights` (flat, f32 or f64, alignment gaps zero) through `staging` (host memory, same dtype). Blocks the
// host; before step 1 only.
void initialize_weights(Stream& stream, const Tensor& weights, const Tensor& staging, const ParamLayout& layout,
                        std::uint64_t seed);

}  // namespace strake::models
