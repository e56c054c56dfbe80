#include "launch/job/model_shape.h"

#include <fmt/format.h>

#include <algorithm>

#include "runtime/base/check.h"

namespace strake::launch {
namespace {

using models::TransformerShape;

// Two thirds of GPT-2's width, since there are three matrices instead of two (Shazeer 2020), rounded up as Llama does.
std::int64_t gated_channels(std::int64_t channels) {
  const std::int64_t step = channels >= 1024 ? 256 : 32;
  return (8 * channels / 3 + step - 1) / step * step;
}

// What every model of a family has in common, and its defaults of the rest.
struct Family {
  std::string_view kind;
  TransformerShape shape;
};

TransformerShape llama_like(double norm_epsilon, double rotary_base, models::Biases biases) {
  return {.norm = models::Norm::kRms,
          .norm_epsilon = norm_epsilon,
          .positions = models::Positions::kRotary,
          .rotary_base = rotary_base,
          .mlp = models::Mlp::kSwiglu,
          .biases = biases,
          .tied_head = false};
}

const std::vector<Family>& families() {
  static const std::vector<Family> all{
      {"gpt2", {}},
      {"llama", llama_like(1e-5, 1e4, models::Biases::kNone)},
      {"qwen2", llama_like(1e-6, 1e6, models::Biases::kQkv)},
  };
  return all;
}

}  // namespace

std::vector<std::string_view> model_kinds() {
  std::vector<std::string_view> kinds;
  for (const Family& family : families()) kinds.push_back(family.kind);
  return kinds;
}

TransformerShape shape_of(const Config& config, std::int64_t vocab) {
  const Config::Model& model = config.model;
  const auto family = std::ranges::find(families(), std::string_view(model.kind), &Family::kind);
  STRAKE_CHECK(family != families().end(), "model.kind was not checked");
  TransformerShape shape = family->shape;
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

ModelKeys keys_of(const TransformerShape& shape) {
  std::string kind;
  for (const Family& family : families()) {
    const TransformerShape& of = family.shape;
    if (of.norm == shape.norm && of.positions == shape.positions && of.mlp == shape.mlp && of.biases == shape.biases)
      kind = family.kind;
  }
  if (kind.empty()) return {};
  const auto text = [](auto value) { return fmt::format("{}", value); };
  ModelKeys keys{{"model.kind", kind},
                 {"model.layers", text(shape.layers)},
                 {"model.channels", text(shape.channels)},
                 {"model.heads", text(shape.heads)},
                 {"model.vocab", text(shape.vocab)},
                 {"train.sequence", text(shape.sequence)},
                 {"model.kv_heads", text(shape.kv_heads)},
                 {"model.head_size", text(shape.head_size)},
                 {"model.mlp_channels", text(shape.mlp_channels)},
                 {"model.tied_head", text(shape.tied_head)},
                 {"model.norm_epsilon", text(shape.norm_epsilon)}};
  if (shape.positions == models::Positions::kRotary) {
    keys.emplace_back("model.rope_theta", text(shape.rotary_base));
    std::string scaling;
    if (const auto& s = shape.rotary_scaling) {
      scaling = fmt::format("llama3:{},{},{},{}", s->factor, s->low_frequency_factor, s->high_frequency_factor,
                            s->original_sequence);
    }
    keys.emplace_back("model.rope_scaling", scaling);
  }
  return keys;
}

std::string to_text(const ModelKeys& keys) {
  std::string out;
  for (const auto& [key, value] : keys) out += fmt::format("{}{}={}", out.empty() ? "" : " ", key, value);
  return out;
}

}  // namespace strake::launch
