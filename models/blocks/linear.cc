#include "models/blocks/linear.h"

#include <utility>

#include "kernels/matmul.h"

namespace strake::models {

Linear::Linear(ParamLayout& layout, std::string name, std::int64_t ins, std::int64_t outs, bool bias, double deviation)
    : name_(std::move(name)),
      weight_(layout.add({.name = name_ + ".weight",
                          .global_shape = {outs, ins},
                          .weight_decay = true,
                          .initial = {InitialValue::Kind::kNormal, deviation}})) {
  if (bias) bias_ = layout.add({.name = name_ + ".bias", .global_shape = {outs}});
}

void Linear::forward(const Pass& pass, const Tensor& y, const Tensor& x) const {
  kernels::linear_forward(pass.compute, pass.forward(name_),
                          {y, x, pass.params.weight(weight_), bias_ ? pass.params.weight(*bias_) : Tensor()});
}

void Linear::backward_weight(const Pass& pass, const Tensor& d_y, const Tensor& x) const {
  kernels::linear_backward_weight(
      pass.compute, pass.backward(name_),
      {pass.params.gradient(weight_), bias_ ? pass.params.gradient(*bias_) : Tensor(), d_y, x, pass.accumulate});
  pass.params.ready(weight_);
  if (bias_) pass.params.ready(*bias_);
}

void Linear::backward_input(const Pass& pass, const Tensor& d_x, const Tensor& d_y) const {
  kernels::linear_backward_input(pass.compute, pass.backward(name_), {d_x, d_y, pass.params.weight(weight_)});
}

}  // namespace strake::models
