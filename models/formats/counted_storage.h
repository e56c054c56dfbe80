// Checkpoints of versions that stored every parameter in the order in which its elements are counted: [out, in], all
// queries before all keys before all values. They knew GPT-2 alone, and their model description has a "kind".
// Threads: pure functions. Errors: IncompatibleCheckpointError for a description that has a kind and is not theirs.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "models/formats/foreign_tensor.h"
#include "models/transformer_shape.h"

namespace strake::models {

// Of a checkpoint's model description; nullopt: of this version, or not to be read.
std::optional<TransformerShape> shape_of_counted_storage(const std::string& model);

// In the order of parameters_of; their names are ours.
std::vector<ForeignTensor> counted_storage_tensors(const TransformerShape& shape);

}  // namespace strake::models
