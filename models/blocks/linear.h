// Linear: a projection of every row, y = x weight^T + bias, with its parameters.
// Threads: the training thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kernels/matmul.h"
#include "models/parameters/param_access.h"

namespace strake::models {

struct LinearShape {
  std::int64_t ins, outs;
  bool bias;
  double deviation;  // of initial weights
  // The axis that tensor parallelism cuts is stored first: so every shard is a flat range.
  enum class Cut : std::uint8_t { kOuts, kIns } cut;
  // Rows of outs by group (InitialValue::group_rows); empty: as they come.
  std::vector<std::int64_t> group_rows = {};
};

class Linear {
 public:
  // Adds name.weight, [outs, ins] or, where the ins are cut, [ins, outs], and name.bias [outs], if asked for.
  Linear(ParamLayout& layout, std::string name, const LinearShape& shape);

  // y [N, outs], x [N, ins]; activated [N, outs]: gelu(y), or undefined.
  void forward(const Pass& pass, const Tensor& y, const Tensor& x, const Tensor& activated = {}) const;
  // The gradients of weight and bias, and says that they are ready. d_y [N, outs], x [N, ins]. BiasGradient::kMade:
  // the operation that made d_y has made bias_gradient() too.
  enum class BiasGradient : bool { kToMake, kMade };
  void backward_weight(const Pass& pass, const Tensor& d_y, const Tensor& x,
                       BiasGradient bias = BiasGradient::kToMake) const;
  Tensor bias_gradient(const Pass& pass) const;  // undefined without a bias
  void backward_input(const Pass& pass, const Tensor& d_x, const Tensor& d_y) const;
  // Where x was gelu(gelu_of): d_x becomes the gradient of gelu_of, and bias_gradient (undefined: none) its column
  // sums.
  void backward_gelu(const Pass& pass, const Tensor& d_x, const Tensor& d_y, const Tensor& gelu_of,
                     const Tensor& bias_gradient) const;

 private:
  std::string name_;
  kernels::WeightLayout stored_;
  ParamId weight_;
  std::optional<ParamId> bias_;
};

}  // namespace strake::models
