// What a rank owns of a layout as checkpoints name it.
// Threads: pure functions.
#pragma once

#include <span>
#include <string_view>

#include "runtime/device/param_spec.h"

namespace strake::models {

// Adds ranges of a flat tensor, each named `prefix` and its parameter. `replicated`: as TensorTable::Entry says.
void append_ranges(TensorTable& table, std::string_view prefix, const ParamLayout& layout,
                   std::span<const OwnedRange> ranges, const Tensor& flat, bool replicated);
// All parameters in a flat tensor of this layout.
void append_ranges(TensorTable& table, std::string_view prefix, const ParamLayout& layout, const Tensor& flat);

}  // namespace strake::models
