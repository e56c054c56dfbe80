#include "models/blocks/mlp.h"

#include "kernels/elementwise.h"
#include "kernels/swiglu.h"
#include "models/blocks/initial_deviation.h"

namespace strake::models {

MlpBlock::MlpBlock(ParamLayout& layout, const TransformerShape& shape, const std::string& name)
    : kind_(shape.mlp),
      channels_(shape.channels),
      inner_(shape.mlp_channels),
      expansion_(kind_ == Mlp::kSwiglu ? 2 * inner_ : inner_),
      name_(name),
      activation_name_(name + (kind_ == Mlp::kSwiglu ? ".swiglu" : ".gelu")),
      down_(layout, name + ".proj",
            {.ins = inner_,
             .outs = channels_,
             .bias = shape.biases == Biases::kAll,
             .deviation = residual_deviation(shape),
             .cut = LinearShape::Cut::kIns}),
      up_(layout, name + (kind_ == Mlp::kSwiglu ? ".gate_up" : ".fc"),
          {.ins = channels_,
           .outs = expansion_,
           .bias = shape.biases == Biases::kAll,
           .deviation = kInitialDeviation,
           .cut = LinearShape::Cut::kOuts,
           .group_rows = kind_ == Mlp::kSwiglu ? std::vector<std::int64_t>{1, 1} : std::vector<std::int64_t>{}}) {}

void MlpBlock::reserve(ActivationMemory& memory, const BatchShape& batch) {
  const auto reserve = [&](const std::string& name, std::int64_t columns) {
    return memory.reserve(name, batch.dtype, {batch.rows(), columns});
  };
  expanded_ = reserve(name_ + ".expanded", expansion_);
  activated_ = reserve(activation_name_, inner_);
  out_ = reserve(name_ + ".proj", channels_);
  if (kind_ == Mlp::kSwiglu) d_activated_ = reserve(name_ + ".d_activated", inner_);
  d_expanded_ = reserve(name_ + ".d_expanded", expansion_);
  d_x_ = reserve(name_ + ".d_x", channels_);
}

void MlpBlock::expand_and_activate(const Pass& pass, const Tensor& x) const {
  if (kind_ != Mlp::kSwiglu) return up_.forward(pass, expanded_, x, activated_);  // GELU along with the product
  up_.forward(pass, expanded_, x);
  activate(pass);
}

void MlpBlock::activate(const Pass& pass) const {
  const Label label = pass.forward(activation_name_);
  if (kind_ == Mlp::kSwiglu) return kernels::swiglu_forward(pass.compute, label, {.y = activated_, .x = expanded_});
  kernels::gelu_forward(pass.compute, label, {.y = activated_, .x = expanded_});
}

void MlpBlock::forward(const Pass& pass, const Tensor& x) const {
  expand_and_activate(pass, x);
  down_.forward(pass, out_, activated_);
}

void MlpBlock::backward(const Pass& pass, const Tensor& d_out, const Tensor& x) const {
  down_.backward_weight(pass, d_out, activated_, Linear::BiasGradient::kMade);
  if (kind_ == Mlp::kSwiglu) {
    down_.backward_input(pass, d_activated_, d_out);
    kernels::swiglu_backward(pass.compute, pass.backward(activation_name_),
                             {.dx = d_expanded_, .dy = d_activated_, .x = expanded_});
    up_.backward_weight(pass, d_expanded_, x);
  } else {
    down_.backward_gelu(pass, d_expanded_, d_out, expanded_, up_.bias_gradient(pass));
    up_.backward_weight(pass, d_expanded_, x, Linear::BiasGradient::kMade);
  }
  up_.backward_input(pass, d_x_, d_expanded_);
}

}  // namespace strake::models
