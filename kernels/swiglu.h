// SwiGLU: the gated activation of an MLP whose gate and up projections are one product.
#pragma once

#include "kernels/arguments.h"

namespace strake::kernels {

// y = silu(gate) * up, silu(z) = z / (1 + e^-z). Gate and up values alternate: the pair of column j of y is read from
// neighbours, and any cut of the columns is one of both.
struct SwigluForward {
  Tensor y;  // [N, M]
  Tensor x;  // [N, 2 * M]: column 2j is the gate, 2j + 1 the up value of y's column j

  Body on_cpu(CpuCode code) const;
  Body on_cuda(Device& device, Operation& operation) const;
};
void swiglu_forward(Stream& stream, Label label, const SwigluForward& arguments);

struct SwigluBackward {
  Tensor dx;  // [N, 2 * M]; may be x
  Tensor dy;  // [N, M]
  Tensor x;   // [N, 2 * M]

  Body on_cpu(CpuCode code) const;
  Body on_cuda(Device& device, Operation& operation) const;
};
void swiglu_backward(Stream& stream, Label label, const SwigluBackward& arguments);

}  // namespace strake::kernels
