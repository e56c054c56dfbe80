// NormBlock: the norm of every row of the residual stream, which it also adds up (Residual).
// Threads: the training thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "models/blocks/residual.h"
#include "models/parameters/param_access.h"
#include "models/transformer_shape.h"
#include "runtime/device/memory_plan.h"

namespace strake::models {

class NormBlock {
 public:
  // Adds name.weight [C] and, of a layer norm, name.bias [C].
  NormBlock(ParamLayout& layout, const TransformerShape& shape, std::string name);
  void reserve(ActivationMemory& memory, const BatchShape& batch);

  // sum = in.x + in.delta, y() = norm of it. Without in.delta `sum` is in.x and not written.
  void forward(const Pass& pass, const Residual& in, const Tensor& sum) const;
  // d_x += gradient through the norm, or = where nothing else comes from there. x: what was normalised. d_x_sums: the
  // gradient of a bias that was added to the stream before, made of the new d_x; undefined: none.
  void backward(const Pass& pass, const Tensor& d_x, const Tensor& d_y, const Tensor& x, const Tensor& d_x_sums,
                kernels::Accumulate to_d_x = kernels::Accumulate::kAdd) const;

  const Tensor& y() const { return y_; }  // [N, C]

 private:
  std::string name_;
  std::int64_t channels_;
  Norm kind_;
  double epsilon_;
  ParamId weight_;
  std::optional<ParamId> bias_;  // of a layer norm
  Tensor y_, mean_, rstd_;       // mean: of a layer norm
};

}  // namespace strake::models
