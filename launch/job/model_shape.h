// From the [model] section of a configuration to the shape of the model: what is not set is as its family has it.
// Threads: pure functions. Errors: none; load_config has refused what contradicts itself.
#pragma once

#include <cstdint>

#include "launch/config.h"
#include "models/transformer_shape.h"

namespace strake::launch {

models::TransformerShape shape_of(const Config& config, std::int64_t vocab);

}  // namespace strake::launch
