// AttentionBlock: causal self-attention of a layer, from the normed residual stream to what is added to it.
// Threads: the training thread.
#pragma once

#include <string>

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
  // d_x() = gradient of the input. d_out: of the output; x: the input.
  void backward(const Pass& pass, const Tensor& d_out, const Tensor& x) const;

  const Tensor& out() const { return projected_; }  // [N, C]
  const Tensor& d_x() const { return d_x_; }        // [N, C]

 private:
  kernels::QkvLayout layout() const { return {shape_.heads, shape_.kv_heads, shape_.head_size}; }

  TransformerShape shape_;
  std::string name_;
  // In the order in which their gradients become final.
  Linear projection_, qkv_projection_;
  Tensor qkv_;               // [N, qkv channels]
  Tensor attended_, stats_;  // [N, H*D], [B, H, T]
  Tensor projected_;
  Tensor d_attended_, d_qkv_, d_x_, scratch_;
};

}  // namespace strake::models
