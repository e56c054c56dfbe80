// Layer norm over the last axis, forward and backward.
#pragma once

#include "kernels/arguments.h"

namespace strake::kernels {

inline constexpr double kLayerNormEpsilon = 1e-5;  // of GPT-2

// y = (x - mean) * rstd * weight + bias, rstd = 1 / sqrt(variance + epsilon).
struct LayerNormForward {
  Tensor y;             // [N, C]
  Tensor mean, rstd;    // [N] (f32; f64 when x is f64)
  Tensor x;             // [N, C]
  Tensor weight, bias;  // [C]
  double epsilon = kLayerNormEpsilon;

  Body on_cpu(CpuCode code) const;
  Body on_cuda(Device& device, Operation& operation) const;
};
void layer_norm_forward(Stream& stream, Label label, const LayerNormForward& arguments);

// x_out = x + delta, then y = layer norm of x_out: the residual add and the norm behind it in one pass.
struct ResidualLayerNormForward {
  Tensor x_out;         // [N, C]; may be x
  Tensor y;             // [N, C]
  Tensor mean, rstd;    // [N], as above
  Tensor x, delta;      // [N, C]
  Tensor weight, bias;  // [C]
  double epsilon = kLayerNormEpsilon;

  Body on_cpu(CpuCode code) const;
  Body on_cuda(Device& device, Operation& operation) const;
};
void residual_layer_norm_forward(Stream& stream, Label label, const ResidualLayerNormForward& arguments);

// dx += gradient of the norm (the residual branch already holds its part in dx), or = where there is no such branch;
// dweight, dbias (+)=. With dx_sums also dx_sums (+)= column sums of the new dx: the gradient of the bias of what was
// added to the stream, without another look at dx.
struct LayerNormBackward {
  Tensor dx;              // [N, C]
  Tensor dweight, dbias;  // [C]
  Tensor dy, x;           // [N, C]
  Tensor mean, rstd;      // [N], of the forward pass
  Tensor weight;          // [C]
  Accumulate accumulate;  // dweight, dbias and dx_sums
  Accumulate accumulate_dx = Accumulate::kAdd;
  Tensor dx_sums = {};  // [C] or undefined

  Body on_cpu(CpuCode code) const;
  Body on_cuda(Device& device, Operation& operation) const;
};
void layer_norm_backward(Stream& stream, Label label, const LayerNormBackward& arguments);

}  // namespace strake::kernels
