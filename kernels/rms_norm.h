// RMS norm over the last axis, forward and backward.
#pragma once

#include "kernels/arguments.h"

namespace strake::kernels {

// y = x * rstd * weight with rstd = 1 / sqrt(average(x^2) + epsilon). The statistics are f32 beside bf16 values, and y
// is rounded once.
struct RmsNormForward {
  Tensor y;       // [N, C]
  Tensor rstd;    // [N] (f32; f64 when x is f64)
  Tensor x;       // [N, C]
  Tensor weight;  // [C]
  double epsilon;

  Body on_cpu(CpuCode code) const;
  Body on_cuda(Device& device, Operation& operation) const;
};
void rms_norm_forward(Stream& stream, Label label, const RmsNormForward& arguments);

// x_out = x + delta, then y = RMS norm of x_out: the residual add and the norm behind it in one pass.
struct ResidualRmsNormForward {
  Tensor x_out;     // [N, C]; may be x
  Tensor y;         // [N, C]
  Tensor rstd;      // [N], as above
  Tensor x, delta;  // [N, C]
  Tensor weight;    // [C]
  double epsilon;

  Body on_cpu(CpuCode code) const;
  Body on_cuda(Device& device, Operation& operation) const;
};
void residual_rms_norm_forward(Stream& stream, Label label, const ResidualRmsNormForward& arguments);

// dx += gradient of the norm (the residual branch already holds its part in dx), or = where there is no such branch;
// dweight (+)=. With dx_sums also dx_sums (+)= column sums of the new dx: the gradient of the bias of what was added to
// the stream, without another look at dx.
struct RmsNormBackward {
  Tensor dx;              // [N, C]
  Tensor dweight;         // [C]
  Tensor dy, x;           // [N, C]
  Tensor rstd;            // [N], of the forward pass
  Tensor weight;          // [C]
  Accumulate accumulate;  // dweight and dx_sums
  Accumulate accumulate_dx = Accumulate::kAdd;
  Tensor dx_sums = {};  // [C] or undefined

  Body on_cpu(CpuCode code) const;
  Body on_cuda(Device& device, Operation& operation) const;
};
void rms_norm_backward(Stream& stream, Label label, const RmsNormBackward& arguments);

}  // namespace strake::kernels
