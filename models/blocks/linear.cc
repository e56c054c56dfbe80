#include "models/blocks/linear.h"

#include <utility>

namespace strake::models {
namespace {

ParamSpec weight_of(const std::string& name, const LinearShape& shape) {
  const bool ins_first = shape.cut == LinearShape::Cut::kIns;
  ParamSpec spec{.name = name + ".weight",
                 .global_shape = {shape.outs, shape.ins},
                 .weight_decay = true,
                 .initial = {.kind = InitialValue::Kind::kNormal,
                             .standard_deviation = shape.deviation,
                             .transposed = ins_first,
                             .group_rows = shape.group_rows}};
  if (ins_first) std::swap(spec.global_shape[0], spec.global_shape[1]);
  return spec;
}

}  // namespace

Linear::Linear(ParamLayout& layout, std::string name, const LinearShape& shape)
    : name_(std::move(name)),
      stored_(shape.cut == LinearShape::Cut::kIns ? kernels::WeightLayout::kInOut : kernels::WeightLayout::kOutIn),
      weight_(layout.add(weight_of(name_, shape))) {
  if (shape.bias) {
    bias_ = layout.add(
        {.name = name_ + ".bias", .global_shape = {shape.outs}, .initial = {.group_rows = shape.group_rows}});
  }
}

void Linear::forward(const Pass& pass, const Tensor& y, const Tensor& x, const Tensor& activated) const {
  kernels::linear_forward(pass.compute, pass.forward(name_),
                          {.y = y,
                           .x = x,
                           .weight = pass.params.weight(weight_),
                           .bias = bias_ ? pass.params.weight(*bias_) : Tensor(),
                           .layout = stored_,
                           .activated = activated});
}

Tensor Linear::bias_gradient(const Pass& pass) const { return bias_ ? pass.params.gradient(*bias_) : Tensor(); }

void Linear::backward_weight(const Pass& pass, const Tensor& d_y, const Tensor& x, BiasGradient bias) const {
  kernels::linear_backward_weight(pass.compute, pass.backward(name_),
                                  {.dweight = pass.params.gradient(weight_),
                                   .dbias = bias == BiasGradient::kToMake ? bias_gradient(pass) : Tensor(),
                                   .dy = d_y,
                                   .x = x,
                                   .accumulate = pass.accumulate,
                                   .layout = stored_});
  pass.params.ready(weight_);
  if (bias_) pass.params.ready(*bias_);
}

void Linear::backward_input(const Pass& pass, const Tensor& d_x, const Tensor& d_y) const {
  kernels::linear_backward_input(pass.compute, pass.backward(name_),
                                 {.dx = d_x, .dy = d_y, .weight = pass.params.weight(weight_), .layout = stored_});
}

void Linear::backward_gelu(const Pass& pass, const Tensor& d_x, const Tensor& d_y, const Tensor& gelu_of,
                           const Tensor& bias_gradient) const {
  kernels::linear_backward_input(pass.compute, pass.backward(name_),
                                 {.dx = d_x,
                                  .dy = d_y,
                                  .weight = pass.params.weight(weight_),
                                  .layout = stored_,
                                  .gelu_of = gelu_of,
                                  .dbias = bias_gradient,
                                  .accumulate = pass.accumulate});
}

}  // namespace strake::models
