// From the [model] section of a configuration to the shape of the model: what is not set is as its family has it.
// Threads: pure functions. Errors: none; load_config has refused what contradicts itself.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "launch/config.h"
#include "models/transformer_shape.h"

namespace strake::launch {

// What model.kind may be.
std::vector<std::string_view> model_kinds();

models::TransformerShape shape_of(const Config& config, std::int64_t vocab);

}  // namespace strake::launch
