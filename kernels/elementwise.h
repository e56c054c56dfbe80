// GELU (tanh form), residual add, casts. All tensors of one operation have one shape and are contiguous.
#pragma once

#include "kernels/arguments.h"

namespace strake::kernels {

// y = gelu(x).
struct GeluForward {
  Tensor y, x;

  Body on_cpu(CpuCode code) const;
  Body on_cuda(Device& device, Operation& operation) const;
};
void gelu_forward(Stream& stream, Label label, const GeluForward& arguments);

// dx = dy * gelu'(x); dx may be dy. With dbias, which needs [M, N], also dbias (+)= column sums of dx: the gradient of
// the bias that was added to x, without another look at dx.
struct GeluBackward {
  Tensor dx, dy, x;
  Tensor dbias = {};  // [N] or undefined
  Accumulate accumulate = Accumulate::kOverwrite;

  Body on_cpu(CpuCode code) const;
  Body on_cuda(Device& device, Operation& operation) const;
};
void gelu_backward(Stream& stream, Label label, const GeluBackward& arguments);

// y = a + b; y may be a or b.
struct Add {
  Tensor y, a, b;

  Body on_cpu(CpuCode code) const;
  Body on_cuda(Device& device, Operation& operation) const;
};
void add(Stream& stream, Label label, const Add& arguments);

// dst = src converted to dst's dtype (f32 <-> bf16, f32 <-> f64), round to nearest even.
struct Cast {
  Tensor dst, src;

  Body on_cpu(CpuCode code) const;
  Body on_cuda(Device& device, Operation& operation) const;
};
void cast(Stream& stream, Label label, const Cast& arguments);

}  // namespace strake::kernels
