// Linear: a projection of every row, y = x weight^T + bias, with its parameters.
// Threads: the training thread.
#pragma once

#include <optional>
#include <string>

#include "models/parameters/param_access.h"

namespace strake::models {

class Linear {
 public:
  // Adds name.weight [outs, ins] and, if asked for, name.bias [outs].
  Linear(ParamLayout& layout, std::string name, std::int64_t ins, std::int64_t outs, bool bias, double deviation);

  void forward(const Pass& pass, const Tensor& y, const Tensor& x) const;  // y [N, outs], x [N, ins]
  // The gradients of weight and bias, and says that they are ready. d_y [N, outs], x [N, ins].
  void backward_weight(const Pass& pass, const Tensor& d_y, const Tensor& x) const;
  void backward_input(const Pass& pass, const Tensor& d_x, const Tensor& d_y) const;

 private:
  std::string name_;
  ParamId weight_;
  std::optional<ParamId> bias_;
};

}  // namespace strake::models
