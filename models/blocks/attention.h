// AttentionBlock: causal self-attention of a layer, from the normed residual stream to what is added to it.
// Threads: the training thread.
#pragma once

#include <string>
#include <vector>

#include "kernels/qkv_layout.h"
#include "models/blocks/linear.h"
#include "models/blocks/residual.h"
#include "models/transformer_shape.h"
#include "runtime/device/memory_plan.h"

namespace strake::models {

class AttentionBlock {
 public:
  AttentionBlock(ParamLayout& layout, const TransformerShape& shape, const std::string& name);
  void reserve(ActivationMemory& memory, const BatchShape& batch);

  void forward(const Pass& pass, const Tensor& x) const;  // x [N, C]
  // d_x() = gradient of the input. d_out: of the output, of which out_bias_gradient() is made already; x: the input.
  void backward(const Pass& pass, const Tensor& d_out, const Tensor& x) const;

  const Tensor& out() const { return out_; }  // [N, C]
  // Undefined without a bias.
  Tensor out_bias_gradient(const Pass& pass) const { return out_projection_.bias_gradient(pass); }
  const Tensor& d_x() const { return d_x_; }  // [N, C]

 private:
  std::string name_, rotary_name_;
  std::int64_t channels_;
  // Heads lie by group as they are projected, so that a rank can hold some groups; attention reads them so where each
  // query head has a key head of its own, else by kind.
  kernels::QkvLayout projected_layout_, attended_layout_;
  std::vector<double> frequencies_;  // of rotary positions; empty: none
  // In the order in which their gradients become final.
  Linear out_projection_, qkv_projection_;
  Tensor qkv_, heads_;       // [B, T, qkv channels], as projected and as attended to: one where nothing moves
  Tensor attended_, stats_;  // [B, T, H*D], [B, H, T]
  Tensor out_;
  Tensor d_attended_, d_heads_, d_qkv_, d_x_, scratch_;
};

}  // namespace strake::models
