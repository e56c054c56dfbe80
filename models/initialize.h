// Initial weights: f(seed, parameter name, global element index), whatever the ranks, the layout and the orientation
// that a weight is stored in.
//
// Made on several threads, a chunk of the flat weights at a time; while a chunk is copied to the device, the next is
// made. Host memory is two chunks, whatever the model's size.
// Threads: the training thread calls; threads of this module's own have ended when a call returns. Errors: the
// device's.
#pragma once

#include <cstdint>

#include "runtime/device/device.h"
#include "runtime/device/param_spec.h"

namespace strake::models {

// Elements of `staging` beyond which nothing gets faster.
std::int64_t initial_staging_elems(const ParamLayout& layout);

// Fills `weights` (f32 or f64: the flat weights from element `begin_elems` of the layout on; alignment gaps zero)
// through `staging` (host memory, same dtype, 2 elements or more), on `threads` threads, this one included. Blocks the
// host; before step 1 only.
void initialize_weights(Stream& stream, const Tensor& weights, const Tensor& staging, const ParamLayout& layout,
                        std::uint64_t seed, int threads = 1, std::int64_t begin_elems = 0);

// The element that lies at row-major index `stored` of the parameter, in the order that its values are counted in
// (InitialValue::transposed, InitialValue::group_rows).
std::int64_t counted_element(const ParamSpec& spec, std::int64_t stored);

}  // namespace strake::models
