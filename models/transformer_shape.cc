#include "models/transformer_shape.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <utility>

#include "kernels/device_limits.h"
#include "models/transformer.h"
#include "runtime/base/error.h"

namespace strake::models {
namespace {

using Json = nlohmann::json;

// The words of an enumeration, by value.
template <typename Kind>
struct Words;
template <>
struct Words<Norm> {
  static constexpr std::array kWords{"layer", "rms"};
};
template <>
struct Words<Positions> {
  static constexpr std::array kWords{"learned", "rotary"};
};
template <>
struct Words<Mlp> {
  static constexpr std::array kWords{"gelu", "swiglu"};
};
template <>
struct Words<Biases> {
  static constexpr std::array kWords{"none", "qkv", "all"};
};

template <typename Kind>
const char* word(Kind kind) {
  return Words<Kind>::kWords[static_cast<std::size_t>(kind)];
}

template <typename Kind>
Kind kind_of(const Json& json, const char* key) {
  const std::string text = json.at(key);
  for (std::size_t i = 0; i < Words<Kind>::kWords.size(); ++i) {
    if (text == Words<Kind>::kWords[i]) return static_cast<Kind>(i);
  }
  throw IncompatibleCheckpointError(
      fmt::format("the checkpoint's model has {} = \"{}\"; this version knows {}. A newer one may read it", key, text,
                  fmt::join(Words<Kind>::kWords, ", ")));
}

}  // namespace

double TransformerShape::model_flops_per_token() const {
  const auto product = [](std::int64_t a, std::int64_t b) { return static_cast<double>(a) * static_cast<double>(b); };
  const double matrices = mlp == Mlp::kSwiglu ? 3 : 2;
  const double layer_weights = product(channels, qkv_channels()) + product(query_channels(), channels) +
                               matrices * product(channels, mlp_channels);
  const double head_weights = product(channels, padded_vocab());
  return 6 * (static_cast<double>(layers) * layer_weights + head_weights) +
         6 * static_cast<double>(sequence) * product(query_channels(), layers);
}

std::string TransformerShape::to_json() const {
  Json json{{"layers", layers},
            {"channels", channels},
            {"heads", heads},
            {"kv_heads", kv_heads},
            {"head_size", head_size},
            {"mlp_channels", mlp_channels},
            {"vocab", vocab},
            {"sequence", sequence},
            {"norm", word(norm)},
            {"norm_epsilon", norm_epsilon},
            {"positions", word(positions)},
            {"mlp", word(mlp)},
            {"biases", word(biases)},
            {"tied_head", tied_head}};
  if (positions == Positions::kRotary) {
    json["rotary_base"] = rotary_base;
    if (rotary_scaling.has_value()) {
      json["rotary_scaling"] = {{"factor", rotary_scaling->factor},
                                {"low_frequency_factor", rotary_scaling->low_frequency_factor},
                                {"high_frequency_factor", rotary_scaling->high_frequency_factor},
                                {"original_sequence", rotary_scaling->original_sequence}};
    }
  }
  return json.dump();
}

TransformerShape TransformerShape::from_json(const std::string& text) {
  try {
    const Json json = Json::parse(text);
    if (json.contains("kind")) {
      throw IncompatibleCheckpointError(
          "its weights are in the order in which earlier versions stored them; `strake ckpt convert RUN --run NEW_RUN` "
          "writes them in today's, and training goes on in the new folder");
    }
    TransformerShape shape{.layers = json.at("layers"),
                           .channels = json.at("channels"),
                           .heads = json.at("heads"),
                           .kv_heads = json.at("kv_heads"),
                           .head_size = json.at("head_size"),
                           .mlp_channels = json.at("mlp_channels"),
                           .vocab = json.at("vocab"),
                           .sequence = json.at("sequence"),
                           .norm = kind_of<Norm>(json, "norm"),
                           .norm_epsilon = json.at("norm_epsilon"),
                           .positions = kind_of<Positions>(json, "positions"),
                           .mlp = kind_of<Mlp>(json, "mlp"),
                           .biases = kind_of<Biases>(json, "biases"),
                           .tied_head = json.at("tied_head")};
    if (shape.positions == Positions::kRotary) {
      shape.rotary_base = json.at("rotary_base");
      if (const auto scaling = json.find("rotary_scaling"); scaling != json.end()) {
        shape.rotary_scaling = {.factor = scaling->at("factor"),
                                .low_frequency_factor = scaling->at("low_frequency_factor"),
                                .high_frequency_factor = scaling->at("high_frequency_factor"),
                                .original_sequence = scaling->at("original_sequence")};
      }
    }
    return shape;
  } catch (const nlohmann::json::exception& error) {
    throw IncompatibleCheckpointError(
        fmt::format("the checkpoint's model description is not readable: {}", error.what()));
  }
}

TransformerShape gpt2_shape(std::int64_t layers, std::int64_t channels, std::int64_t heads, std::int64_t vocab,
                            std::int64_t sequence) {
  return {.layers = layers,
          .channels = channels,
          .heads = heads,
          .kv_heads = heads,
          .head_size = channels / heads,
          .mlp_channels = 4 * channels,
          .vocab = vocab,
          .sequence = sequence};
}

std::string_view family_of(const TransformerShape& shape) {
  if (shape.norm == Norm::kLayer && shape.positions == Positions::kLearned && shape.mlp == Mlp::kGelu &&
      shape.biases == Biases::kAll && shape.tied_head && shape.kv_heads == shape.heads &&
      shape.query_channels() == shape.channels) {
    return "gpt2";
  }
  if (shape.norm == Norm::kRms && shape.positions == Positions::kRotary && shape.mlp == Mlp::kSwiglu) {
    if (shape.biases == Biases::kNone) return "llama";
    if (shape.biases == Biases::kQkv) return "qwen2";
  }
  return "";
}

std::string unsupported(const TransformerShape& shape, DeviceKind device, DType dtype, std::int64_t batch) {
  const kernels::DeviceLimits limits = kernels::limits_of(device, dtype);
  const auto fits = [](std::int64_t value, std::int64_t step, std::int64_t most) {
    return value % step == 0 && value <= most;
  };
  const ParamLayout layout = parameters_of(shape);
  std::vector<std::string> problems;
  const std::int64_t most_channels = shape.norm == Norm::kRms ? limits.most_rms_norm_channels : limits.most_channels;
  if (!fits(shape.channels, limits.channels_step, most_channels)) {
    problems.push_back(fmt::format("in {} GPUs take model.channels in steps of {} up to {}, not {}", name_of(dtype),
                                   limits.channels_step, most_channels, shape.channels));
  }
  if (!fits(shape.head_size, limits.head_size_step, limits.most_head_size)) {
    problems.push_back(
        fmt::format("in {} GPUs take heads (model.channels / model.heads) in steps of {} up to {} "
                    "channels, not {}",
                    name_of(dtype), limits.head_size_step, limits.most_head_size, shape.head_size));
  }
  if (layout.param_elems() > limits.most_elems) {
    problems.push_back(
        fmt::format("GPUs take parameters of {} elements together, this model has {}; a smaller "
                    "model.vocab, model.channels or model.layers has fewer",
                    limits.most_elems, layout.param_elems()));
  }
  // Bytes of every activation are counted in 64 bits.
  const std::int64_t widest =
      std::max({shape.channels, shape.qkv_channels(), 2 * shape.mlp_channels, shape.padded_vocab()});
  if (static_cast<double>(batch) * static_cast<double>(shape.sequence) * static_cast<double>(widest) > 0x1p56) {
    problems.push_back(
        fmt::format("an activation of train.micro_batch x train.sequence x {} elements is too large for "
                    "any device",
                    widest));
  }
  if (batch > limits.most_batch) {
    problems.push_back(fmt::format("in {} GPUs take at most train.micro_batch = {}, not {}", name_of(dtype),
                                   limits.most_batch, batch));
  }
  if (batch * shape.sequence > limits.most_tokens) {
    problems.push_back(fmt::format("GPUs take at most {} tokens at once, train.micro_batch x train.sequence has {}",
                                   limits.most_tokens, batch * shape.sequence));
  }
  return fmt::format("{}", fmt::join(problems, "; "));
}

}  // namespace strake::models
