// MlpBlock: the MLP of a layer, from the normed residual stream to what is added to it.
// Threads: the training thread.
#pragma once

#include <string>

#include "models/blocks/linear.h"
#include "models/blocks/residual.h"
#include "models/transformer_shape.h"
#include "runtime/device/memory_plan.h"

namespace strake::models {

class MlpBlock {
 public:
  MlpBlock(ParamLayout& layout, const TransformerShape& shape, const std::string& name);
  void reserve(ActivationMemory& memory, const BatchShape& batch);

  void forward(const Pass& pass, const Tensor& x) const;  // x [N, C]
  // The parts of forward that backward reads; the second where the expansion was kept.
  void expand_and_activate(const Pass& pass, const Tensor& x) const;
  void activate(const Pass& pass) const;
  // d_x() = gradient of the input. d_out: of the output, of which out_bias_gradient() is made already; x: the input.
  void backward(const Pass& pass, const Tensor& d_out, const Tensor& x) const;

  const Tensor& out() const { return out_; }                                              // [N, C]
  Tensor out_bias_gradient(const Pass& pass) const { return down_.bias_gradient(pass); }  // undefined without a bias
  const Tensor& d_x() const { return d_x_; }                                              // [N, C]

 private:
  Mlp kind_;
  std::int64_t channels_, inner_, expansion_;  // C, M, M or (gate and up) 2M
  std::string name_, activation_name_;
  // In the order in which their gradients become final.
  Linear down_, up_;
  Tensor expanded_;   // [N, expansion]; gate and up alternate
  Tensor activated_;  // [N, M]
  Tensor out_;
  Tensor d_activated_, d_expanded_, d_x_;  // d_activated: of SwiGLU, GELU's is never stored
};

}  // namespace strake::models
