#include "models/blocks/mlp.h"

#include "kernels/elementwise.h"
#include "models/blocks/initial_deviation.h"

namespace strake::models {

MlpBlock::MlpBlock(ParamLayout& layout, const TransformerShape& shape, const std::string& name)
    : channels_(shape.channels),
      inner_(shape.mlp_channels),
      name_(name),
      activation_name_(name + ".gelu"),
      down_(layout, name + ".proj", shape.mlp_channels, shape.channels, shape.biases == Biases::kAll,
            residual_deviation(shape)),
      up_(layout, name + ".fc", shape.channels, shape.mlp_channels, shape.biases == Biases::kAll, kInitialDeviation) {}

void MlpBlock::reserve(ActivationMemory& memory, const BatchShape& batch) {
  const auto reserve = [&](const std::string& name, std::int64_t columns) {
    return memory.reserve(name, batch.dtype, {batch.rows(), columns});
  };
  expanded_ = reserve(name_ + ".fc", inner_);
  activated_ = reserve(activation_name_, inner_);
  projected_ = reserve(name_ + ".proj", channels_);
  d_inner_ = reserve(name_ + ".d_inner", inner_);
  d_x_ = reserve(name_ + ".d_x", channels_);
}

void MlpBlock::expand(const Pass& pass, const Tensor& x) const { up_.forward(pass, expanded_, x); }

void MlpBlock::activate(const Pass& pass) const {
  kernels::gelu_forward(pass.compute, pass.forward(activation_name_), {activated_, expanded_});
}

void MlpBlock::forward(const Pass& pass, const Tensor& x) const {
  expand(pass, x);
  activate(pass);
  down_.forward(pass, projected_, activated_);
}

void MlpBlock::backward(const Pass& pass, const Tensor& d_out, const Tensor& x) const {
  down_.backward_weight(pass, d_out, activated_);
  down_.backward_input(pass, d_inner_, d_out);
  kernels::gelu_backward(pass.compute, pass.backward(activation_name_), {d_inner_, d_inner_, expanded_});
  up_.backward_weight(pass, d_inner_, x);
  up_.backward_input(pass, d_x_, d_inner_);
}

}  // namespace strake::models
