#include "models/gpt.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <vector>

#include "kernels/attention.h"
#include "kernels/cross_entropy.h"
#include "kernels/device_limits.h"
#include "kernels/elementwise.h"
#include "kernels/embedding.h"
#include "kernels/layer_norm.h"
#include "kernels/matmul.h"
#include "runtime/base/error.h"

namespace strake::models {

using kernels::Accumulate;

double GptShape::model_flops_per_token() const {
  const auto c = static_cast<double>(channels);
  const double block_weights = static_cast<double>(layers) * 12 * c * c;
  const double head_weights = c * static_cast<double>(padded_vocab());
  return 6 * (block_weights + head_weights) + 6 * static_cast<double>(sequence) * c * static_cast<double>(layers);
}

std::string GptShape::to_json() const {
  return nlohmann::json{{"kind", "gpt2"}, {"layers", layers}, {"channels", channels},
                        {"heads", heads}, {"vocab", vocab},   {"sequence", sequence}}
      .dump();
}

GptShape GptShape::from_json(const std::string& text) {
  try {
    const nlohmann::json json = nlohmann::json::parse(text);
    if (json.at("kind") != "gpt2")
      throw IncompatibleCheckpointError("the checkpoint holds a model of another kind: " + text);
    return {.layers = json.at("layers"),
            .channels = json.at("channels"),
            .heads = json.at("heads"),
            .vocab = json.at("vocab"),
            .sequence = json.at("sequence")};
  } catch (const nlohmann::json::exception& error) {
    throw IncompatibleCheckpointError(
        fmt::format("the checkpoint's model description is not readable: {}", error.what()));
  }
}

std::string unsupported(const GptShape& shape, DeviceKind device, DType dtype, std::int64_t batch) {
  const kernels::DeviceLimits limits = kernels::limits_of(device, dtype);
  const auto fits = [](std::int64_t value, std::int64_t step, std::int64_t most) {
    return value % step == 0 && value <= most;
  };
  const std::int64_t head_size = shape.channels / shape.heads;
  const std::vector<ParamSpec> specs = Gpt::parameters(shape);
  const auto parameters = static_cast<std::int64_t>(specs.size());
  std::int64_t elems = 0;
  for (const ParamSpec& spec : specs) elems += spec.elems();
  std::vector<std::string> problems;
  if (!fits(shape.channels, limits.channels_step, limits.most_channels)) {
    problems.push_back(fmt::format("in {} GPUs take model.channels in steps of {} up to {}, not {}", name_of(dtype),
                                   limits.channels_step, limits.most_channels, shape.channels));
  }
  if (!fits(head_size, limits.head_size_step, limits.most_head_size)) {
    problems.push_back(
        fmt::format("in {} GPUs take heads (model.channels / model.heads) in steps of {} up to {} "
                    "channels, not {}",
                    name_of(dtype), limits.head_size_step, limits.most_head_size, head_size));
  }
  if (parameters > limits.most_segments) {
    problems.push_back(fmt::format("GPUs take at most {} parameters, model.layers = {} has {}", limits.most_segments,
                                   shape.layers, parameters));
  }
  if (elems > limits.most_elems) {
    problems.push_back(
        fmt::format("GPUs take parameters of {} elements together, this model has {}; a smaller "
                    "model.vocab, model.channels or model.layers has fewer",
                    limits.most_elems, elems));
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

std::vector<ParamSpec> Gpt::parameters(const GptShape& shape) {
  const std::int64_t c = shape.channels;
  const double deviation = 0.02;
  // Projections that add to the residual stream start smaller, by the number of additions (GPT-2).
  const double residual_deviation = deviation / std::sqrt(2.0 * static_cast<double>(shape.layers));
  const InitialValue zeros{};
  const InitialValue ones{InitialValue::Kind::kOnes, 0};
  const auto normal = [](double standard_deviation) {
    return InitialValue{InitialValue::Kind::kNormal, standard_deviation};
  };

  std::vector<ParamSpec> specs;
  const auto add = [&specs](std::string name, std::vector<std::int64_t> global_shape, InitialValue initial) {
    const bool matrix = global_shape.size() > 1;
    specs.push_back(
        {.name = std::move(name), .global_shape = std::move(global_shape), .weight_decay = matrix, .initial = initial});
  };
  add("ln_f.weight", {c}, ones);
  add("ln_f.bias", {c}, zeros);
  for (std::int64_t layer = shape.layers; layer-- > 0;) {
    const std::string block = fmt::format("h.{}.", layer);
    add(block + "mlp.proj.weight", {c, 4 * c}, normal(residual_deviation));
    add(block + "mlp.proj.bias", {c}, zeros);
    add(block + "mlp.fc.weight", {4 * c, c}, normal(deviation));
    add(block + "mlp.fc.bias", {4 * c}, zeros);
    add(block + "ln_2.weight", {c}, ones);
    add(block + "ln_2.bias", {c}, zeros);
    add(block + "attn.proj.weight", {c, c}, normal(residual_deviation));
    add(block + "attn.proj.bias", {c}, zeros);
    add(block + "attn.qkv.weight", {3 * c, c}, normal(deviation));
    add(block + "attn.qkv.bias", {3 * c}, zeros);
    add(block + "ln_1.weight", {c}, ones);
    add(block + "ln_1.bias", {c}, zeros);
  }
  add("wte.weight", {shape.padded_vocab(), c}, normal(deviation));
  add("wpe.weight", {shape.sequence, c}, normal(deviation));
  return specs;
}

Gpt::Gpt(const GptShape& shape, std::int64_t batch, const ParamLayout& layout, Tensor weights, Tensor gradients,
         ActivationMemory& memory, DeviceKind target)
    : shape_(shape), batch_(batch), layout_(layout), weights_(weights), gradients_(gradients) {
  std::int32_t next = 0;
  const auto param = [&next] { return ParamId{next++}; };
  final_ln_weight_ = param();
  final_ln_bias_ = param();
  params_.resize(static_cast<std::size_t>(shape.layers));
  for (std::size_t layer = params_.size(); layer-- > 0;) {
    LayerParams& p = params_[layer];
    p.mlp_proj_weight = param(), p.mlp_proj_bias = param();
    p.fc_weight = param(), p.fc_bias = param();
    p.ln2_weight = param(), p.ln2_bias = param();
    p.attn_proj_weight = param(), p.attn_proj_bias = param();
    p.qkv_weight = param(), p.qkv_bias = param();
    p.ln1_weight = param(), p.ln1_bias = param();
  }
  token_table_ = param();
  position_table_ = param();
  STRAKE_CHECK(static_cast<std::size_t>(next) == layout.size(), "the layout is of another model");

  const DType dtype = weights.dtype();
  const DType stats = dtype == DType::kF64 ? DType::kF64 : DType::kF32;
  const std::int64_t b = batch, t = shape.sequence, n = b * t, c = shape.channels;
  const std::int64_t scratch_elems = kernels::attention_backward_scratch_elems(target, b, t, c, shape.heads);
  for (std::int64_t layer = 0; layer < shape.layers; ++layer) {
    const std::string block = fmt::format("h.{}.", layer);
    const auto reserve = [&](const char* name, std::initializer_list<std::int64_t> dims) {
      return memory.reserve(block + name, dtype, dims);
    };
    const auto reserve_stats = [&](const char* name, std::initializer_list<std::int64_t> dims) {
      return memory.reserve(block + name, stats, dims);
    };
    LayerActivations a;
    a.x = reserve("x", {n, c});
    a.ln1 = reserve("ln_1", {n, c}), a.ln1_mean = reserve_stats("ln_1.mean", {n}),
    a.ln1_rstd = reserve_stats("ln_1.rstd", {n});
    a.qkv = reserve("attn.qkv", {b, t, 3 * c});
    a.attn = reserve("attn", {b, t, c}), a.attn_stats = reserve_stats("attn.stats", {b, shape.heads, t});
    a.attn_proj = reserve("attn.proj", {n, c});
    a.x_mid = reserve("x_mid", {n, c});
    a.ln2 = reserve("ln_2", {n, c}), a.ln2_mean = reserve_stats("ln_2.mean", {n}),
    a.ln2_rstd = reserve_stats("ln_2.rstd", {n});
    a.fc = reserve("mlp.fc", {n, 4 * c}), a.gelu = reserve("mlp.gelu", {n, 4 * c});
    a.mlp_proj = reserve("mlp.proj", {n, c});
    a.d_gelu = reserve("d_gelu", {n, 4 * c}), a.d_ln2 = reserve("d_ln_2", {n, c});
    a.d_attn = reserve("d_attn", {b, t, c}), a.d_qkv = reserve("d_qkv", {b, t, 3 * c}),
    a.d_ln1 = reserve("d_ln_1", {n, c});
    if (scratch_elems > 0) a.attn_scratch = reserve("attn.scratch", {scratch_elems});
    layers_.push_back(a);
    names_.push_back({block + "ln_1", block + "attn.qkv", block + "attn", block + "attn.proj", block + "ln_2",
                      block + "mlp.fc", block + "mlp.gelu", block + "mlp.proj"});
  }
  x_final_ = memory.reserve("x_final", dtype, {n, c});
  final_ln_ = memory.reserve("ln_f", dtype, {n, c});
  final_mean_ = memory.reserve("ln_f.mean", stats, {n}), final_rstd_ = memory.reserve("ln_f.rstd", stats, {n});
  logits_ = memory.reserve("logits", dtype, {n, shape.padded_vocab()});
  losses_ = memory.reserve("losses", stats, {n});
  d_final_ln_ = memory.reserve("d_ln_f", dtype, {n, c});
  d_x_ = memory.reserve("d_x", dtype, {n, c});
}

void Gpt::forward(Stream& compute, const Tensor& tokens, Phase phase) {
  const std::int64_t n = batch_ * shape_.sequence, c = shape_.channels;
  kernels::embedding_forward(compute, {"embedding", phase}, layers_.front().x.reshape({batch_, shape_.sequence, c}),
                             tokens, weight(token_table_), weight(position_table_));
  for (std::size_t layer = 0; layer < layers_.size(); ++layer) {
    const LayerParams& p = params_[layer];
    const LayerActivations& a = layers_[layer];
    const LayerNames& name = names_[layer];
    if (layer == 0) {
      kernels::layer_norm_forward(compute, {name.ln1, phase}, a.ln1, a.ln1_mean, a.ln1_rstd, a.x, weight(p.ln1_weight),
                                  weight(p.ln1_bias));
    } else {
      const LayerActivations& below = layers_[layer - 1];
      kernels::residual_layer_norm_forward(compute, {name.ln1, phase}, a.x, a.ln1, a.ln1_mean, a.ln1_rstd, below.x_mid,
                                           below.mlp_proj, weight(p.ln1_weight), weight(p.ln1_bias));
    }
    kernels::linear_forward(compute, {name.qkv, phase}, a.qkv.reshape({n, 3 * c}), a.ln1, weight(p.qkv_weight),
                            weight(p.qkv_bias));
    kernels::attention_forward(compute, {name.attn, phase}, a.attn, a.attn_stats, a.qkv, shape_.heads);
    kernels::linear_forward(compute, {name.attn_proj, phase}, a.attn_proj, a.attn.reshape({n, c}),
                            weight(p.attn_proj_weight), weight(p.attn_proj_bias));
    kernels::residual_layer_norm_forward(compute, {name.ln2, phase}, a.x_mid, a.ln2, a.ln2_mean, a.ln2_rstd, a.x,
                                         a.attn_proj, weight(p.ln2_weight), weight(p.ln2_bias));
    kernels::linear_forward(compute, {name.fc, phase}, a.fc, a.ln2, weight(p.fc_weight), weight(p.fc_bias));
    kernels::gelu_forward(compute, {name.gelu, phase}, a.gelu, a.fc);
    kernels::linear_forward(compute, {name.mlp_proj, phase}, a.mlp_proj, a.gelu, weight(p.mlp_proj_weight),
                            weight(p.mlp_proj_bias));
  }
  const LayerActivations& top = layers_.back();
  kernels::residual_layer_norm_forward(compute, {"ln_f", phase}, x_final_, final_ln_, final_mean_, final_rstd_,
                                       top.x_mid, top.mlp_proj, weight(final_ln_weight_), weight(final_ln_bias_));
  kernels::linear_forward(compute, {"head", phase}, logits_, final_ln_, weight(token_table_), Tensor());
}

void Gpt::loss_and_gradient(Stream& compute, const Tensor& targets, const Tensor& loss_total, double loss_scale,
                            double gradient_scale, bool accumulate) {
  const Tensor flat_targets = targets.reshape({targets.elems()});
  kernels::cross_entropy_forward_backward(compute, {"cross entropy", Phase::kForward}, logits_, losses_, flat_targets,
                                          shape_.vocab, gradient_scale);
  kernels::accumulate_loss(compute, {"loss", Phase::kForward}, loss_total, losses_, loss_scale, accumulate);
}

void Gpt::loss(Stream& compute, const Tensor& targets, const Tensor& loss_total, double loss_scale, bool accumulate) {
  const Tensor flat_targets = targets.reshape({targets.elems()});
  kernels::cross_entropy_forward(compute, {"cross entropy", Phase::kEval}, losses_, logits_, flat_targets,
                                 shape_.vocab);
  kernels::accumulate_loss(compute, {"loss", Phase::kEval}, loss_total, losses_, loss_scale, accumulate);
}

// Inside a layer the weight gradient comes before the input gradient: its reduction can start that much earlier.
void Gpt::backward(Stream& compute, const Tensor& tokens, bool accumulate_gradients, const GradientReady& ready) {
  const std::int64_t n = batch_ * shape_.sequence, c = shape_.channels;
  const Accumulate accumulate = accumulate_gradients ? Accumulate::kAdd : Accumulate::kOverwrite;
  const Phase phase = Phase::kBackward;
  const Tensor& d_logits = logits_;

  kernels::linear_backward_weight(compute, {"head d_weight", phase}, gradient(token_table_), Tensor(), d_logits,
                                  final_ln_, accumulate);
  kernels::linear_backward_input(compute, {"head d_input", phase}, d_final_ln_, d_logits, weight(token_table_));
  compute.zero({"d_x zero", phase}, d_x_);
  kernels::layer_norm_backward(compute, {"ln_f", phase}, d_x_, gradient(final_ln_weight_), gradient(final_ln_bias_),
                               d_final_ln_, x_final_, final_mean_, final_rstd_, weight(final_ln_weight_), accumulate);
  ready(final_ln_weight_);
  ready(final_ln_bias_);

  for (std::size_t layer = layers_.size(); layer-- > 0;) {
    const LayerParams& p = params_[layer];
    const LayerActivations& a = layers_[layer];
    const LayerNames& name = names_[layer];
    // d_x_ is the gradient of the block's output: of x_mid and of the MLP's output alike.
    kernels::linear_backward_weight(compute, {name.mlp_proj, phase}, gradient(p.mlp_proj_weight),
                                    gradient(p.mlp_proj_bias), d_x_, a.gelu, accumulate);
    ready(p.mlp_proj_weight);
    ready(p.mlp_proj_bias);
    kernels::linear_backward_input(compute, {name.mlp_proj, phase}, a.d_gelu, d_x_, weight(p.mlp_proj_weight));
    kernels::gelu_backward(compute, {name.gelu, phase}, a.d_gelu, a.d_gelu, a.fc);
    kernels::linear_backward_weight(compute, {name.fc, phase}, gradient(p.fc_weight), gradient(p.fc_bias), a.d_gelu,
                                    a.ln2, accumulate);
    ready(p.fc_weight);
    ready(p.fc_bias);
    kernels::linear_backward_input(compute, {name.fc, phase}, a.d_ln2, a.d_gelu, weight(p.fc_weight));
    kernels::layer_norm_backward(compute, {name.ln2, phase}, d_x_, gradient(p.ln2_weight), gradient(p.ln2_bias),
                                 a.d_ln2, a.x_mid, a.ln2_mean, a.ln2_rstd, weight(p.ln2_weight), accumulate);
    ready(p.ln2_weight);
    ready(p.ln2_bias);
    kernels::linear_backward_weight(compute, {name.attn_proj, phase}, gradient(p.attn_proj_weight),
                                    gradient(p.attn_proj_bias), d_x_, a.attn.reshape({n, c}), accumulate);
    ready(p.attn_proj_weight);
    ready(p.attn_proj_bias);
    kernels::linear_backward_input(compute, {name.attn_proj, phase}, a.d_attn.reshape({n, c}), d_x_,
                                   weight(p.attn_proj_weight));
    kernels::attention_backward(compute, {name.attn, phase}, a.d_qkv, a.d_attn, a.qkv, a.attn, a.attn_stats,
                                a.attn_scratch, shape_.heads);
    kernels::linear_backward_weight(compute, {name.qkv, phase}, gradient(p.qkv_weight), gradient(p.qkv_bias),
                                    a.d_qkv.reshape({n, 3 * c}), a.ln1, accumulate);
    ready(p.qkv_weight);
    ready(p.qkv_bias);
    kernels::linear_backward_input(compute, {name.qkv, phase}, a.d_ln1, a.d_qkv.reshape({n, 3 * c}),
                                   weight(p.qkv_weight));
    kernels::layer_norm_backward(compute, {name.ln1, phase}, d_x_, gradient(p.ln1_weight), gradient(p.ln1_bias),
                                 a.d_ln1, a.x, a.ln1_mean, a.ln1_rstd, weight(p.ln1_weight), accumulate);
    ready(p.ln1_weight);
    ready(p.ln1_bias);
  }

  // The token table holds the head's part already.
  kernels::embedding_backward(compute, {"embedding", phase}, gradient(token_table_), Accumulate::kAdd,
                              gradient(position_table_), accumulate, d_x_.reshape({batch_, shape_.sequence, c}),
                              tokens);
  ready(token_table_);
  ready(position_table_);
}

}  // namespace strake::models
