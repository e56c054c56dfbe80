// GPT-2 (Radford et al. 2019): parameters, forward and hand-written backward.
//
// Pre-norm blocks, learned positions, GELU (tanh form), tied embedding and head. The head's part of
// the tied gradient is made first in backward and the embedding's part last, so that parameter is final only at
// the end: the bucket plan gives it a bucket of its own.
//
// The model enqueues kernels on the compute stream it is given; it knows nothing of ranks, files or time.
// Threads: the training thread.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "runtime/device/device.h"
#include "runtime/device/memory_plan.h"
#include "runtime/device/param_spec.h"

namespace strake::models {

struct GptShape {
  std::int64_t layers;
  std::int64_t channels;
  int heads;
  std::int64_t vocab;     // ids are below this
  std::int64_t sequence;  // T, also the number of learned positions
  // Rows of the token table: the vocabulary rounded up to 128, so that matmul tiles are whole. Padding
  // rows take no part in the softmax and stay at their initial zero gradient.
  std::int64_t padded_vocab() const { return (vocab + 127) / 128 * 128; }

  // FLOPs of forward and backward for one token: 6 per matmul weight (head counted once, embedding not)
  // plus causal attention 6 * T * channels * layers. The convention of MFU in this project.
  double model_flops_per_token() const;
  // Canonical JSON, stored in checkpoints and compared on load.
  std::string to_json() const;
  // Inverse; throws IncompatibleCheckpointError on anything else.
  static GptShape from_json(const std::string& text);
  bool operator==(const GptShape&) const = default;
};

// What of this model, `batch` sequences at once, the kernels of `device` cannot compute in `dtype`, naming keys and
// what they can: "GPUs take model.channels ..."; empty: nothing.
std::string unsupported(const GptShape& shape, DeviceKind device, DType dtype, std::int64_t batch = 1);

// Called while backward is being enqueued: the gradient of `param` is final on the compute stream.
using GradientReady = std::function<void(ParamId)>;

class Gpt {
 public:
  // Parameters in the order in which backward finishes their gradients.
  static std::vector<ParamSpec> parameters(const GptShape& shape);
  // How many parameters at the end of that order are final only when backward ends (embeddings).
  static constexpr std::size_t kFinalAtEnd = 2;

  // weights, gradients: flat, laid out by `layout`. Activations are kept in the dtype of the weights; gradients too, or
  // in f32 beside bf16. Activations for [batch, shape.sequence] tokens come from `memory`, scratch as kernels on
  // `target` need it. `layout` outlives the model.
  Gpt(const GptShape& shape, std::int64_t batch, const ParamLayout& layout, Tensor weights, Tensor gradients,
      ActivationMemory& memory, DeviceKind target);

  // tokens [B, T] -> logits [B*T, padded vocab], all activations kept for backward. Phase: kForward or kEval.
  void forward(Stream& compute, const Tensor& tokens, Phase phase = Phase::kForward);

  // loss_total [1] (+)= loss_scale * sum over tokens of the cross-entropy; the logits become
  // gradient_scale * d loss / d logits. Follows forward; part of it in the account.
  void loss_and_gradient(Stream& compute, const Tensor& targets, const Tensor& loss_total, double loss_scale,
                         double gradient_scale, bool accumulate_loss);
  // The loss alone, for evaluation.
  void loss(Stream& compute, const Tensor& targets, const Tensor& loss_total, double loss_scale, bool accumulate_loss);

  // Gradients of every parameter; added to those of earlier micro-batches when `accumulate`. Follows loss_and_gradient.
  void backward(Stream& compute, const Tensor& tokens, bool accumulate, const GradientReady& ready);

  const Tensor& logits() const { return logits_; }
  const GptShape& shape() const { return shape_; }

 private:
  struct LayerParams {
    ParamId ln1_weight, ln1_bias, qkv_weight, qkv_bias, attn_proj_weight, attn_proj_bias;
    ParamId ln2_weight, ln2_bias, fc_weight, fc_bias, mlp_proj_weight, mlp_proj_bias;
  };
  struct LayerActivations {  // N = B*T
    Tensor x;                // [N, C] residual stream entering the block
    Tensor ln1, ln1_mean, ln1_rstd;
    Tensor qkv;               // [B, T, 3C]
    Tensor attn, attn_stats;  // [B, T, C], [B, heads, T]
    Tensor attn_proj;         // [N, C]
    Tensor x_mid;             // [N, C] after attention
    Tensor ln2, ln2_mean, ln2_rstd;
    Tensor fc, gelu;  // [N, 4C]
    Tensor mlp_proj;  // [N, C]
    // Gradients; the memory plan lets layers share them.
    Tensor d_gelu, d_ln2, d_attn, d_qkv, d_ln1, attn_scratch;
  };
  struct LayerNames {
    std::string ln1, qkv, attn, attn_proj, ln2, fc, gelu, mlp_proj;
  };

  Tensor weight(ParamId id) const { return layout_.view(weights_, id); }
  Tensor gradient(ParamId id) const { return layout_.view(gradients_, id); }

  GptShape shape_;
  std::int64_t batch_;
  const ParamLayout& layout_;
  Tensor weights_;
  Tensor gradients_;
  ParamId final_ln_weight_, final_ln_bias_, token_table_, position_table_;
  std::vector<LayerParams> params_;
  std::vector<LayerActivations> layers_;
  std::vector<LayerNames> names_;
  Tensor x_final_, final_ln_, final_mean_, final_rstd_;
  Tensor logits_, losses_;
  Tensor d_final_ln_, d_x_;
};

}  // namespace strake::models
