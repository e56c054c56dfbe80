// GPT-2 as Hugging Face keeps it (GPT2LMHeadModel): which of its tensors is which parameter of our model, and its
// config.json. A description and conversions of arrays; files are read and written by others.
//
// There, projections are Conv1D, stored [in, out]: ours are [out, in]. Query, key and value are packed alike. The head
// is the token table in both. Our token table has padding rows, which take no part in anything: zero here, absent
// there.
//
// Threads: pure functions. Errors: IncompatibleCheckpointError naming key, value and what is possible.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/transformer_shape.h"
#include "runtime/base/dtype.h"
#include "runtime/device/param_spec.h"

namespace strake::models {

struct HuggingFaceTensor {
  std::string name;                 // without prefix: "h.3.attn.c_attn.weight"
  std::vector<std::int64_t> shape;  // there
  ParamId param;                    // in parameters_of
  bool transposed;                  // theirs [in, out], ours [out, in]

  std::int64_t elems() const;
};

// Stands before every name that GPT2LMHeadModel saves; absent in files of the bare model.
inline constexpr std::string_view kHuggingFacePrefix = "transformer.";
// The head, where a file repeats the token table under its name (it never has the prefix).
inline constexpr std::string_view kHuggingFaceHead = "lm_head.weight";

// In the order of parameters_of, each parameter once.
std::vector<HuggingFaceTensor> hugging_face_tensors(const TransformerShape& shape);
// Is a tensor of this name (without prefix) no weight: the causal mask that older files carry?
bool is_hugging_face_mask(std::string_view name);

// ours: [rows, columns] of the ParamSpec, row-major; theirs: of `tensor.shape`. Rows that they lack become zero.
void from_hugging_face(const HuggingFaceTensor& tensor, std::span<const float> theirs, std::span<float> ours);
void to_hugging_face(const HuggingFaceTensor& tensor, std::span<const float> ours, std::span<float> theirs);

// The shape that a config.json describes. Everything that our model would compute otherwise is refused, all in
// one error. Dropout is not: it is part of training. `where` names the file.
TransformerShape shape_from_hugging_face(std::string_view config, const std::string& where);
// A config.json for these weights. dtype: kF32 or kBF16. end_of_text: id of the token that ends a text; -1: none.
std::string hugging_face_config(const TransformerShape& shape, DType dtype, std::int64_t end_of_text);

}  // namespace strake::models
