#include "models/blocks/norm.h"

#include <utility>

#include "kernels/layer_norm.h"

namespace strake::models {

NormBlock::NormBlock(ParamLayout& layout, const TransformerShape& shape, std::string name)
    : name_(std::move(name)),
      channels_(shape.channels),
      weight_(layout.add(
          {.name = name_ + ".weight", .global_shape = {shape.channels}, .initial = {InitialValue::Kind::kOnes, 0}})),
      bias_(layout.add({.name = name_ + ".bias", .global_shape = {shape.channels}})) {}

void NormBlock::reserve(ActivationMemory& memory, const BatchShape& batch) {
  y_ = memory.reserve(name_, batch.dtype, {batch.rows(), channels_});
  mean_ = memory.reserve(name_ + ".mean", batch.stats(), {batch.rows()});
  rstd_ = memory.reserve(name_ + ".rstd", batch.stats(), {batch.rows()});
}

void NormBlock::forward(const Pass& pass, const Residual& in, const Tensor& sum) const {
  const Tensor weight = pass.params.weight(weight_), bias = pass.params.weight(bias_);
  if (in.delta.defined()) {
    kernels::residual_layer_norm_forward(pass.compute, pass.forward(name_),
                                         {.x_out = sum,
                                          .y = y_,
                                          .mean = mean_,
                                          .rstd = rstd_,
                                          .x = in.x,
                                          .delta = in.delta,
                                          .weight = weight,
                                          .bias = bias});
  } else {
    kernels::layer_norm_forward(pass.compute, pass.forward(name_),
                                {.y = y_, .mean = mean_, .rstd = rstd_, .x = in.x, .weight = weight, .bias = bias});
  }
}

void NormBlock::backward(const Pass& pass, const Tensor& d_x, const Tensor& d_y, const Tensor& x) const {
  kernels::layer_norm_backward(pass.compute, pass.backward(name_),
                               {.dx = d_x,
                                .dweight = pass.params.gradient(weight_),
                                .dbias = pass.params.gradient(bias_),
                                .dy = d_y,
                                .x = x,
                                .mean = mean_,
                                .rstd = rstd_,
                                .weight = pass.params.weight(weight_),
                                .accumulate = pass.accumulate});
  pass.params.ready(weight_);
  pass.params.ready(bias_);
}

}  // namespace strake::models
