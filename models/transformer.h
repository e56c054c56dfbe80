// Transformer: a decoder-only language model, composed from blocks/ as its shape says: forward and hand-written
// backward.
//
// It enqueues kernels on the compute stream it is given; it knows nothing of ranks, files or time. Its parameters are
// written once: each block adds its own, and blocks are made in the order in which backward finishes their gradients.
// Threads: the training thread.
#pragma once

#include <vector>

#include "models/blocks/embedding.h"
#include "models/blocks/head.h"
#include "models/blocks/layer.h"
#include "models/parameters/param_access.h"
#include "models/split_embedding.h"
#include "models/transformer_shape.h"
#include "runtime/device/memory_plan.h"

namespace strake::models {

class Transformer {
 public:
  // Adds all parameters to `layout`, in ready order.
  Transformer(const TransformerShape& shape, ParamLayout& layout, SplitEmbedding split = SplitEmbedding::kNo);
  // What forward does not keep; before reserve().
  void recompute(Recompute policy);
  // Activations for [batch, shape.sequence] tokens from `memory`, in `dtype`, scratch as kernels on `target` need it.
  // Gradients may also be in f32 beside bf16. Before the first pass.
  void reserve(ActivationMemory& memory, std::int64_t batch, DType dtype, DeviceKind target);

  // tokens [B, T] -> logits [B*T, padded vocab], all activations kept for backward.
  void forward(const Pass& pass, const Tensor& tokens) const;
  // As HeadBlock; they follow forward.
  void loss_and_gradient(const Pass& pass, const Tensor& targets, const Tensor& loss_total, double loss_scale,
                         double gradient_scale, bool accumulate_loss) const;
  void loss(const Pass& pass, const Tensor& targets, const Tensor& loss_total, double loss_scale,
            bool accumulate_loss) const;
  // Gradients of every parameter, as pass.accumulate says. Follows loss_and_gradient.
  void backward(const Pass& pass, const Tensor& tokens) const;

  const Tensor& logits() const { return head_.logits(); }
  ParamId token_table() const { return embedding_.token_table(); }

 private:
  TransformerShape shape_;
  // In the order in which their gradients become final: the head, the layers from the last, the embedding.
  HeadBlock head_;
  std::vector<Layer> layers_;  // the last first
  EmbeddingBlock embedding_;
  Tensor d_x_;  // [N, C], the gradient of the residual stream
};

// The parameters of a model of this shape.
ParamLayout parameters_of(const TransformerShape& shape, SplitEmbedding split = SplitEmbedding::kNo);

}  // namespace strake::models
