// Models as Hugging Face's transformers keeps them: which of its tensors is which part of which parameter, and
// config.json. GPT-2 (GPT2LMHeadModel), Llama 2 and 3 (LlamaForCausalLM), Mistral without a window, Qwen2. A
// description; files are read and written by others.
//
// Our token table and head have padding rows, which take no part in anything: zero here, absent there.
//
// Threads: pure functions. Errors: IncompatibleCheckpointError naming key, value and what is possible.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "models/formats/foreign_tensor.h"
#include "models/transformer_shape.h"
#include "runtime/base/dtype.h"

namespace strake::models {

// The head. A file may repeat a token table under this name that is the head too.
inline constexpr std::string_view kHuggingFaceHead = "lm_head.weight";

// Without the prefix: "h.3.attn.c_attn.weight", "layers.3.self_attn.q_proj.weight". In the order of parameters_of, each
// element of every parameter in one of them, but for padding rows. Throws if no family has this shape.
std::vector<ForeignTensor> hugging_face_tensors(const TransformerShape& shape);
// The token table's of these.
const ForeignTensor& token_table_of(const std::vector<ForeignTensor>& tensors, const TransformerShape& shape);

// Names as a model with a head saves them: "transformer.h.3...", "model.layers.3...", "lm_head.weight". The bare model
// saves the same without the prefix.
std::string with_hugging_face_prefix(const TransformerShape& shape, std::string_view name);
std::string_view without_hugging_face_prefix(const TransformerShape& shape, std::string_view name);
// Is a tensor of this name (without prefix) no weight: what older files carry beside them?
bool is_hugging_face_buffer(std::string_view name);

// The shape that a config.json describes. Everything that our model would compute otherwise is refused, all in
// one error. Dropout is not: it is part of training. `where` names the file.
TransformerShape shape_from_hugging_face(std::string_view config, const std::string& where);
// A config.json for these weights. dtype: kF32 or kBF16. end_of_text: id of the token that ends a text; -1: none.
std::string hugging_face_config(const TransformerShape& shape, DType dtype, std::int64_t end_of_text);

}  // namespace strake::models
