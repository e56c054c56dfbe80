#include "models/blocks/layer.h"

#include <fmt/format.h>

namespace strake::models {

Layer::Layer(ParamLayout& layout, const TransformerShape& shape, std::int64_t index)
    : channels_(shape.channels),
      name_(fmt::format("h.{}", index)),
      mlp_(layout, shape, name_ + ".mlp"),
      norm_2_(layout, shape, name_ + ".ln_2"),
      attention_(layout, shape, name_ + ".attn"),
      norm_1_(layout, shape, name_ + ".ln_1") {}

void Layer::reserve(ActivationMemory& memory, const BatchShape& batch) {
  x_ = memory.reserve(name_ + ".x", batch.dtype, {batch.rows(), channels_});
  norm_1_.reserve(memory, batch);
  attention_.reserve(memory, batch);
  x_mid_ = memory.reserve(name_ + ".x_mid", batch.dtype, {batch.rows(), channels_});
  norm_2_.reserve(memory, batch);
  mlp_.reserve(memory, batch);
}

Residual Layer::forward(const Pass& pass, const Residual& in) const {
  norm_1_.forward(pass, in, x_);
  attention_.forward(pass, norm_1_.y());
  norm_2_.forward(pass, {x_, attention_.out()}, x_mid_);
  mlp_.forward(pass, norm_2_.y());
  return {x_mid_, mlp_.out()};
}

void Layer::backward(const Pass& pass, const Tensor& d_x, const Tensor& d_x_sums) const {
  const Pass again = pass.again();
  if (recompute_ == Recompute::kBlock) {
    norm_1_.forward(again, {x_, Tensor()}, x_);
    attention_.forward(again, norm_1_.y());
    norm_2_.forward(again, {x_, attention_.out()}, x_mid_);
    mlp_.expand_and_activate(again, norm_2_.y());
  } else if (recompute_ == Recompute::kNormActivation) {
    norm_2_.forward(again, {x_mid_, Tensor()}, x_mid_);
    mlp_.activate(again);
  }
  mlp_.backward(pass, d_x, norm_2_.y());
  norm_2_.backward(pass, d_x, mlp_.d_x(), x_mid_, attention_.out_bias_gradient(pass));
  if (recompute_ == Recompute::kNormActivation) norm_1_.forward(again, {x_, Tensor()}, x_);
  attention_.backward(pass, d_x, norm_1_.y());
  norm_1_.backward(pass, d_x, attention_.d_x(), x_, d_x_sums);
}

}  // namespace strake::models
