#include "models/formats/hugging_face.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <span>
#include <utility>

#include "models/transformer.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"

namespace strake::models {
namespace {

// A parameter of ours, or one part of its rows.
struct Renaming {
  std::string_view ours, theirs;
  std::optional<std::size_t> part = std::nullopt;
  bool in_out = false;
};

// Projections are Conv1D there, stored [in, out]. Query, key and value are one tensor, part by part.
constexpr Renaming kGpt2Layer[] = {
    {"ln_1.weight", "ln_1.weight"},
    {"ln_1.bias", "ln_1.bias"},
    {"attn.qkv.weight", "attn.c_attn.weight", {}, true},
    {"attn.qkv.bias", "attn.c_attn.bias"},
    {"attn.proj.weight", "attn.c_proj.weight", {}, true},
    {"attn.proj.bias", "attn.c_proj.bias"},
    {"ln_2.weight", "ln_2.weight"},
    {"ln_2.bias", "ln_2.bias"},
    {"mlp.fc.weight", "mlp.c_fc.weight", {}, true},
    {"mlp.fc.bias", "mlp.c_fc.bias"},
    {"mlp.proj.weight", "mlp.c_proj.weight", {}, true},
    {"mlp.proj.bias", "mlp.c_proj.bias"},
};
constexpr Renaming kGpt2Around[] = {
    {"wte.weight", "wte.weight"},
    {"wpe.weight", "wpe.weight"},
    {"ln_f.weight", "ln_f.weight"},
    {"ln_f.bias", "ln_f.bias"},
};

constexpr Renaming kLlamaLayer[] = {
    {"ln_1.weight", "input_layernorm.weight"},          {"attn.qkv.weight", "self_attn.q_proj.weight", 0},
    {"attn.qkv.weight", "self_attn.k_proj.weight", 1},  {"attn.qkv.weight", "self_attn.v_proj.weight", 2},
    {"attn.qkv.bias", "self_attn.q_proj.bias", 0},      {"attn.qkv.bias", "self_attn.k_proj.bias", 1},
    {"attn.qkv.bias", "self_attn.v_proj.bias", 2},      {"attn.proj.weight", "self_attn.o_proj.weight"},
    {"ln_2.weight", "post_attention_layernorm.weight"}, {"mlp.gate_up.weight", "mlp.gate_proj.weight", 0},
    {"mlp.gate_up.weight", "mlp.up_proj.weight", 1},    {"mlp.proj.weight", "mlp.down_proj.weight"},
};
constexpr Renaming kLlamaAround[] = {
    {"wte.weight", "embed_tokens.weight"},
    {"ln_f.weight", "norm.weight"},
    {"head.weight", kHuggingFaceHead},
};

struct Naming {
  std::string_view family;  // family_of(shape)
  std::string_view prefix;  // before every name but the head's
  std::string_view layers;  // before the number of a layer
  std::span<const Renaming> layer, around;
};
constexpr Naming kNamings[] = {
    {"gpt2", "transformer.", "h.", kGpt2Layer, kGpt2Around},
    {"llama", "model.", "layers.", kLlamaLayer, kLlamaAround},
    {"qwen2", "model.", "layers.", kLlamaLayer, kLlamaAround},
};

// Behind "h.3.": causal masks; behind "layers.3.": frequencies of the rotary positions.
constexpr std::string_view kBuffers[] = {"attn.bias", "attn.masked_bias", "self_attn.rotary_emb.inv_freq"};

const Naming& naming_of(const TransformerShape& shape) {
  const std::string_view family = family_of(shape);
  for (const Naming& naming : kNamings) {
    if (naming.family == family) return naming;
  }
  throw IncompatibleCheckpointError(
      fmt::format("no family of models that transformers knows is made like this one: {}", shape.to_json()));
}

// "h.12." of "h.12.attn.qkv.weight"; empty outside the layers.
std::string_view layer_of(std::string_view name, std::string_view layers) {
  if (!name.starts_with(layers)) return {};
  const std::size_t end = name.find_first_not_of("0123456789", layers.size());
  return end == name.npos || end == layers.size() || name[end] != '.' ? std::string_view() : name.substr(0, end + 1);
}

// The name of a parameter's layer, there.
std::string renamed_layer(std::string_view ours, const Naming& naming) {
  constexpr std::string_view kOurLayers = "h.";
  if (ours.empty()) return "";
  return fmt::format("{}{}", naming.layers, ours.substr(kOurLayers.size()));
}

ForeignTensor renamed(const Renaming& renaming, const std::string& layer, const ParamSpec& spec, ParamId param) {
  ForeignTensor tensor{fmt::format("{}{}", layer, renaming.theirs), counted_shape(spec), param};
  if (renaming.part.has_value()) {
    const RowRange rows = rows_of_part(spec, *renaming.part);
    tensor.first_row = rows.first;
    tensor.shape[0] = rows.rows;
  }
  if (renaming.in_out) {
    tensor.in_out = true;
    std::swap(tensor.shape[0], tensor.shape[1]);
  }
  return tensor;
}

}  // namespace

std::vector<ForeignTensor> hugging_face_tensors(const TransformerShape& shape) {
  const Naming& naming = naming_of(shape);
  const ParamLayout layout = parameters_of(shape);
  std::vector<ForeignTensor> tensors;
  for (std::size_t i = 0; i < layout.size(); ++i) {
    const ParamId param{static_cast<std::int32_t>(i)};
    const ParamSpec& spec = layout.spec(param);
    const std::string_view layer = layer_of(spec.name, "h.");
    const std::size_t before = tensors.size();
    for (const Renaming& renaming : layer.empty() ? naming.around : naming.layer) {
      if (std::string_view(spec.name).substr(layer.size()) != renaming.ours) continue;
      tensors.push_back(renamed(renaming, renamed_layer(layer, naming), spec, param));
      const bool table = spec.name == "wte.weight" || spec.name == "head.weight";
      if (table) tensors.back().shape[0] = shape.vocab;
    }
    STRAKE_CHECK(tensors.size() > before, spec.name + " has no name in " + std::string(naming.family));
  }
  return tensors;
}

const ForeignTensor& token_table_of(const std::vector<ForeignTensor>& tensors, const TransformerShape& shape) {
  const Naming& naming = naming_of(shape);
  const auto table = std::ranges::find(naming.around, std::string_view("wte.weight"), &Renaming::ours);
  return *std::ranges::find(tensors, table->theirs, &ForeignTensor::name);
}

std::string with_hugging_face_prefix(const TransformerShape& shape, std::string_view name) {
  return fmt::format("{}{}", name == kHuggingFaceHead ? "" : naming_of(shape).prefix, name);
}

std::string_view without_hugging_face_prefix(const TransformerShape& shape, std::string_view name) {
  const std::string_view prefix = naming_of(shape).prefix;
  return name.starts_with(prefix) ? name.substr(prefix.size()) : name;
}

bool is_hugging_face_buffer(std::string_view name) {
  for (const Naming& naming : kNamings) {
    const std::string_view layer = layer_of(name, naming.layers);
    if (!layer.empty() && std::ranges::find(kBuffers, name.substr(layer.size())) != std::end(kBuffers)) return true;
  }
  return false;
}

}  // namespace strake::models
