#include "launch/job/model_shape.h"

namespace strake::launch {
namespace {

using models::TransformerShape;

// Two thirds of GPT-2's width, since there are three matrices instead of two (Shazeer 2020), rounded up as Llama does.
std::int64_t gated_channels(std::int64_t channels) {
  const std::int64_t step = channels >= 1024 ? 256 : 32;
  return (8 * channels / 3 + step - 1) / step * step;
}

// What every model of the family has in common, and defaults of the rest.
TransformerShape family_shape(const Config::Model& model) {
  if (model.kind == "gpt2") return {};
  const bool qwen2 = model.kind == "qwen2";
  return {.norm = models::Norm::kRms,
          .norm_epsilon = qwen2 ? 1e-6 : 1e-5,
          .positions = models::Positions::kRotary,
          .rotary_base = qwen2 ? 1e6 : 1e4,
          .mlp = models::Mlp::kSwiglu,
          .biases = qwen2 ? models::Biases::kQkv : models::Biases::kNone,
          .tied_head = false};
}

}  // namespace

TransformerShape shape_of(const Config& config, std::int64_t vocab) {
  const Config::Model& model = config.model;
  TransformerShape shape = family_shape(model);
  shape.layers = model.layers;
  shape.channels = model.channels;
  shape.heads = model.heads;
  shape.kv_heads = model.kv_heads.value_or(model.heads);
  shape.head_size = model.head_size.value_or(model.channels / model.heads);
  shape.mlp_channels = model.mlp_channels.value_or(shape.mlp == models::Mlp::kSwiglu ? gated_channels(model.channels)
                                                                                     : 4 * model.channels);
  shape.vocab = vocab;
  shape.sequence = config.train.sequence;
  shape.norm_epsilon = model.norm_epsilon.value_or(shape.norm_epsilon);
  shape.rotary_base = model.rope_theta.value_or(shape.rotary_base);
  shape.rotary_scaling = rotary_scaling_from(model.rope_scaling);
  shape.tied_head = model.tied_head.value_or(shape.tied_head);
  return shape;
}

}  // namespace strake::launch
