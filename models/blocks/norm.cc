#include "models/blocks/norm.h"

#include <utility>

#include "kernels/layer_norm.h"
#include "kernels/rms_norm.h"

namespace strake::models {

NormBlock::NormBlock(ParamLayout& layout, const TransformerShape& shape, std::string name)
    : name_(std::move(name)),
      channels_(shape.channels),
      kind_(shape.norm),
      epsilon_(shape.norm_epsilon),
      weight_(layout.add({.name = name_ + ".weight",
                          .global_shape = {shape.channels},
                          .initial = {.kind = InitialValue::Kind::kOnes}})) {
  if (kind_ == Norm::kLayer) bias_ = layout.add({.name = name_ + ".bias", .global_shape = {shape.channels}});
}

void NormBlock::reserve(ActivationMemory& memory, const BatchShape& batch) {
  y_ = memory.reserve(name_, batch.dtype, {batch.rows(), channels_});
  if (kind_ == Norm::kLayer) mean_ = memory.reserve(name_ + ".mean", batch.stats(), {batch.rows()});
  rstd_ = memory.reserve(name_ + ".rstd", batch.stats(), {batch.rows()});
}

void NormBlock::forward(const Pass& pass, const Residual& in, const Tensor& sum) const {
  const Label label = pass.forward(name_);
  const Tensor weight = pass.params.weight(weight_);
  if (kind_ == Norm::kRms) {
    if (!in.delta.defined()) {
      return kernels::rms_norm_forward(pass.compute, label,
                                       {.y = y_, .rstd = rstd_, .x = in.x, .weight = weight, .epsilon = epsilon_});
    }
    return kernels::residual_rms_norm_forward(
        pass.compute, label,
        {.x_out = sum, .y = y_, .rstd = rstd_, .x = in.x, .delta = in.delta, .weight = weight, .epsilon = epsilon_});
  }
  const Tensor bias = pass.params.weight(*bias_);
  if (!in.delta.defined()) {
    return kernels::layer_norm_forward(
        pass.compute, label,
        {.y = y_, .mean = mean_, .rstd = rstd_, .x = in.x, .weight = weight, .bias = bias, .epsilon = epsilon_});
  }
  kernels::residual_layer_norm_forward(pass.compute, label,
                                       {.x_out = sum,
                                        .y = y_,
                                        .mean = mean_,
                                        .rstd = rstd_,
                                        .x = in.x,
                                        .delta = in.delta,
                                        .weight = weight,
                                        .bias = bias,
                                        .epsilon = epsilon_});
}

void NormBlock::backward(const Pass& pass, const Tensor& d_x, const Tensor& d_y, const Tensor& x,
                         const Tensor& d_x_sums, kernels::Accumulate to_d_x) const {
  const Label label = pass.backward(name_);
  if (kind_ == Norm::kRms) {
    kernels::rms_norm_backward(pass.compute, label,
                               {.dx = d_x,
                                .dweight = pass.params.gradient(weight_),
                                .dy = d_y,
                                .x = x,
                                .rstd = rstd_,
                                .weight = pass.params.weight(weight_),
                                .accumulate = pass.accumulate,
                                .accumulate_dx = to_d_x,
                                .dx_sums = d_x_sums});
  } else {
    kernels::layer_norm_backward(pass.compute, label,
                                 {.dx = d_x,
                                  .dweight = pass.params.gradient(weight_),
                                  .dbias = pass.params.gradient(*bias_),
                                  .dy = d_y,
                                  .x = x,
                                  .mean = mean_,
                                  .rstd = rstd_,
                                  .weight = pass.params.weight(weight_),
                                  .accumulate = pass.accumulate,
                                  .accumulate_dx = to_d_x,
                                  .dx_sums = d_x_sums});
  }
  pass.params.ready(weight_);
  if (bias_) pass.params.ready(*bias_);
}

}  // namespace strake::models
