// Layer norm over the last axis, epsilon 1e-5, forward and backward.
#pragma once

#include "kernels/matmul.h"  // Accumulate
#include "runtime/device/device.h"

namespace strake::kernels {

inline constexpr double kLayerNormEpsilon = 1e-5;

// y = (x - mean) * rstd * weight + bias.  x, y [N, C]; weight, bias [C]; mean, rstd [N] (f32; f64 when x is f64).
void layer_norm_forward(Stream& stream, Label label, const Tensor& y, const Tensor& mean, const Tensor& rstd,
                        const Tensor& x, const Tensor& weight, const Tensor& bias);

// x_out = x + delta, then y = layer norm of x_out: the residual add and the norm behind it in one pass.
// x_out, x, delta, y [N, C]. x_out may be x.
void residual_layer_norm_forward(Stream& stream, Label label, const Tensor& x_out, const Tensor& y, const Tensor& mean,
                                 const Tensor& rstd, const Tensor& x, const Tensor& delta, const Tensor& weight,
                                 const Tensor& bias);

// dx += gradient of the norm (the residual branch already holds its part in dx).
// dweight, dbias [C] (+)=. dy, x, dx [N, C].
void layer_norm_backward(Stream& stream, Label label, const Tensor& dx, const Tensor& dweight, const Tensor& dbias,
                         const Tensor& dy, const Tensor& x, const Tensor& mean, const Tensor& rstd,
                         const Tensor& weight, Accumulate accumulate);

}  // namespace strake::kernels
