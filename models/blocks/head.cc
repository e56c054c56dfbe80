#include "models/blocks/head.h"

#include "kernels/cross_entropy.h"
#include "kernels/matmul.h"
#include "models/blocks/embedding.h"
#include "models/blocks/initial_deviation.h"

namespace strake::models {
namespace {

// The head's gradient is the first that is final.
ParamId add_head(ParamLayout& layout, const TransformerShape& shape, SplitEmbedding split) {
  if (split == SplitEmbedding::kYes) return layout.add(token_table_spec(shape, FinalAtEnd::kNo));
  if (shape.tied_head) return ParamId{-1};
  return layout.add({.name = "head.weight",
                     .global_shape = {shape.padded_vocab(), shape.channels},
                     .weight_decay = true,
                     .initial = {InitialValue::Kind::kNormal, kInitialDeviation}});
}

}  // namespace

HeadBlock::HeadBlock(ParamLayout& layout, const TransformerShape& shape, SplitEmbedding split)
    : shape_(shape),
      final_here_(!shape.tied_head || split == SplitEmbedding::kYes),
      head_(add_head(layout, shape, split)),
      norm_(layout, shape, "ln_f") {
  STRAKE_CHECK(shape.tied_head || split == SplitEmbedding::kNo, "a head of its own has nothing to split");
}

void HeadBlock::reserve(ActivationMemory& memory, const BatchShape& batch) {
  const std::int64_t n = batch.rows(), c = shape_.channels;
  x_ = memory.reserve("x_final", batch.dtype, {n, c});
  norm_.reserve(memory, batch);
  logits_ = memory.reserve("logits", batch.dtype, {n, shape_.padded_vocab()});
  losses_ = memory.reserve("losses", batch.stats(), {n});
  d_normed_ = memory.reserve("d_ln_f", batch.dtype, {n, c});
}

void HeadBlock::forward(const Pass& pass, const Residual& in) const {
  norm_.forward(pass, in, x_);
  kernels::linear_forward(pass.compute, pass.forward("head"),
                          {.y = logits_, .x = norm_.y(), .weight = pass.params.weight(head_)});
}

void HeadBlock::loss_and_gradient(const Pass& pass, const Tensor& targets, const Tensor& loss_total, double loss_scale,
                                  double gradient_scale, bool accumulate_loss) const {
  kernels::cross_entropy_forward_backward(pass.compute, pass.forward("cross entropy"),
                                          {.logits = logits_,
                                           .losses = losses_,
                                           .targets = targets.reshape({targets.elems()}),
                                           .vocab = shape_.vocab,
                                           .gradient_scale = gradient_scale});
  kernels::accumulate_loss(pass.compute, pass.forward("loss"), {loss_total, losses_, loss_scale, accumulate_loss});
}

void HeadBlock::loss(const Pass& pass, const Tensor& targets, const Tensor& loss_total, double loss_scale,
                     bool accumulate_loss) const {
  kernels::cross_entropy_forward(
      pass.compute, pass.forward("cross entropy"),
      {.losses = losses_, .logits = logits_, .targets = targets.reshape({targets.elems()}), .vocab = shape_.vocab});
  kernels::accumulate_loss(pass.compute, pass.forward("loss"), {loss_total, losses_, loss_scale, accumulate_loss});
}

void HeadBlock::backward(const Pass& pass, const Tensor& d_x, const Tensor& d_x_sums) const {
  const Tensor& d_logits = logits_;
  kernels::linear_backward_weight(pass.compute, pass.backward("head d_weight"),
                                  {.dweight = pass.params.gradient(head_),
                                   .dbias = Tensor(),
                                   .dy = d_logits,
                                   .x = norm_.y(),
                                   .accumulate = pass.accumulate});
  if (final_here_) pass.params.ready(head_);
  kernels::linear_backward_input(pass.compute, pass.backward("head d_input"),
                                 {.dx = d_normed_, .dy = d_logits, .weight = pass.params.weight(head_)});
  norm_.backward(pass, d_x, d_normed_, x_, d_x_sums, kernels::Accumulate::kOverwrite);
}

}  // namespace strake::models
