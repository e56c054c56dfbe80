// The owned ranges of a layout as checkpoints name them.
// Threads: pure functions.
#pragma once

#include <string_view>

#include "runtime/device/param_spec.h"

namespace strake::models {

// Adds the owned ranges of a flat tensor of this layout, each named `prefix` and its parameter.
void append_ranges(TensorTable& table, std::string_view prefix, const ParamLayout& layout, const Tensor& flat);

}  // namespace strake::models
