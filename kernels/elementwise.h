// GELU (tanh form), residual add, casts.
#pragma once

#include "runtime/device/device.h"

namespace strake::kernels {

// y = gelu(x), x and y of one shape, contiguous.
void gelu_forward(Stream& stream, Label label, const Tensor& y, const Tensor& x);
// dx = dy * gelu'(x); dx may be dy.
void gelu_backward(Stream& stream, Label label, const Tensor& dx, const Tensor& dy, const Tensor& x);

// y = a + b; y may be a or b.
void add(Stream& stream, Label label, const Tensor& y, const Tensor& a, const Tensor& b);

// dst = src converted to dst's dtype (f32 <-> bf16, f32 <-> f64), round to nearest even.
void cast(Stream& stream, Label label, const Tensor& dst, const Tensor& src);

}  // namespace strake::kernels
