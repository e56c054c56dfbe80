// From the [model] section of a configuration to the shape of the model, and back: what is not set is as its family has
// it. Threads: pure functions. Errors: none; load_config has refused what contradicts itself.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "launch/config.h"
#include "models/transformer_shape.h"

namespace strake::launch {

// What model.kind may be.
std::vector<std::string_view> model_kinds();

models::TransformerShape shape_of(const Config& config, std::int64_t vocab);

// Keys and their values, as arguments take them.
using ModelKeys = std::vector<std::pair<std::string, std::string>>;
// All keys that say this shape: a configuration with them has it, whatever else is in it. Empty: no model.kind has its
// kinds.
ModelKeys keys_of(const models::TransformerShape& shape);
// "model.kind=llama model.layers=2"
std::string to_text(const ModelKeys& keys);

}  // namespace strake::launch
