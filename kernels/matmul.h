// Matrix products, forward and backward, with bias. Row-major, PyTorch's Linear convention:
// weight is [out, in], y = x weight^T + bias.
//
// f32 on the CPU goes through oneDNN (or the reference where it is not built in); f64 through the
// reference. Ordering: everything runs on `stream`; operands may be reused behind it.
#pragma once

#include "kernels/arguments.h"

namespace strake::kernels {

// y = x weight^T + bias.
struct LinearForward {
  Tensor y;          // [M, N]
  Tensor x;          // [M, K]
  Tensor weight;     // [N, K]
  Tensor bias = {};  // [N] or undefined

  Body on_cpu(CpuCode code) const;
  Body on_cuda(Device& device, Operation& operation) const;
};
void linear_forward(Stream& stream, Label label, const LinearForward& arguments);

// dweight (+)= dy^T x, dbias (+)= column sums of dy.
struct LinearBackwardWeight {
  Tensor dweight;  // [N, K]
  Tensor dbias;    // [N] or undefined
  Tensor dy;       // [M, N]
  Tensor x;        // [M, K]
  Accumulate accumulate;

  Body on_cpu(CpuCode code) const;
  Body on_cuda(Device& device, Operation& operation) const;
};
void linear_backward_weight(Stream& stream, Label label, const LinearBackwardWeight& arguments);

// dx = dy weight.
struct LinearBackwardInput {
  Tensor dx;      // [M, K]
  Tensor dy;      // [M, N]
  Tensor weight;  // [N, K]

  Body on_cpu(CpuCode code) const;
  Body on_cuda(Device& device, Operation& operation) const;
};
void linear_backward_input(Stream& stream, Label label, const LinearBackwardInput& arguments);

}  // namespace strake::kernels
