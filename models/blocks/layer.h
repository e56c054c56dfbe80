// Layer: a pre-norm transformer layer, attention and MLP.
//
//   x = in.x + in.delta             out.x = x + attention(norm_1(x))
//                                   out.delta = mlp(norm_2(out.x))
// Inside a block the weight gradient comes before the input gradient: its reduction can start that much earlier.
// Threads: the training thread.
#pragma once

#include <cstdint>
#include <string>

#include "models/blocks/attention.h"
#include "models/blocks/mlp.h"
#include "models/blocks/norm.h"
#include "models/recompute.h"

namespace strake::models {

class Layer {
 public:
  Layer(ParamLayout& layout, const TransformerShape& shape, std::int64_t index);
  // Before memory is reserved.
  void recompute(Recompute policy) { recompute_ = policy; }
  void reserve(ActivationMemory& memory, const BatchShape& batch);

  // What enters this layer, as a sum; where nothing is to be added, `in.x` of forward is this.
  const Tensor& x() const { return x_; }
  Residual forward(const Pass& pass, const Residual& in) const;
  // What forward did not keep is computed again, on the same bytes or others.
  // d_x [N, C]: the gradient of the output, of out.x and out.delta alike, becomes that of the input. Its sums over rows
  // are gradients of biases: whoever makes the output's makes out_bias_gradient() with it, and this layer makes
  // d_x_sums, of the input's. Both may be undefined.
  void backward(const Pass& pass, const Tensor& d_x, const Tensor& d_x_sums) const;
  Tensor out_bias_gradient(const Pass& pass) const { return mlp_.out_bias_gradient(pass); }

 private:
  std::int64_t channels_;
  std::string name_;  // "h.3"
  // In the order in which their gradients become final.
  MlpBlock mlp_;
  NormBlock norm_2_;
  AttentionBlock attention_;
  NormBlock norm_1_;
  Recompute recompute_ = Recompute::kNone;
  Tensor x_, x_mid_;  // [N, C], before and behind attention
};

}  // namespace strake::models
