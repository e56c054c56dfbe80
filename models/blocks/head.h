// HeadBlock: the residual stream to logits and their loss.
// Threads: the training thread.
#pragma once

#include <optional>

#include "models/blocks/norm.h"
#include "models/blocks/residual.h"
#include "models/split_embedding.h"
#include "models/transformer_shape.h"
#include "runtime/device/memory_plan.h"

namespace strake::models {

class HeadBlock {
 public:
  // Adds head.weight [padded vocab, C], if the head is not tied to the token table, and the last norm. `split`: the
  // token table, whose gradient is final here but for the embedding's part, instead.
  HeadBlock(ParamLayout& layout, const TransformerShape& shape, SplitEmbedding split);
  // The token table is the head. REQUIRES: the shape says so.
  void tie(ParamId token_table) { head_ = token_table; }
  ParamId weight() const { return head_; }
  void reserve(ActivationMemory& memory, const BatchShape& batch);

  void forward(const Pass& pass, const Residual& in) const;

  // loss_total [1] (+)= loss_scale * sum over tokens of the cross-entropy; the logits become
  // gradient_scale * d loss / d logits. Follows forward; part of it in the account.
  void loss_and_gradient(const Pass& pass, const Tensor& targets, const Tensor& loss_total, double loss_scale,
                         double gradient_scale, bool accumulate_loss) const;
  // The loss alone, for evaluation.
  void loss(const Pass& pass, const Tensor& targets, const Tensor& loss_total, double loss_scale,
            bool accumulate_loss) const;

  // d_x [N, C] = gradient of the input, d_x_sums of a bias added to it (Layer::backward). A tied head leaves its part
  // in the token table's gradient, or all of that.
  void backward(const Pass& pass, const Tensor& d_x, const Tensor& d_x_sums) const;

  const Tensor& logits() const { return logits_; }  // [N, padded vocab]

 private:
  TransformerShape shape_;
  bool final_here_;  // the gradient of head_
  ParamId head_{-1};
  NormBlock norm_;
  Tensor x_, logits_, losses_, d_normed_;
};

}  // namespace strake::models
