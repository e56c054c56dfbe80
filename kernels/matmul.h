// Matrix products, forward and backward, with bias. Row-major, PyTorch's Linear convention:
// weight is [out, in], y = x weight^T + bias.
//
// f32 on the CPU goes through oneDNN (or the reference where it is not built in); f64 through the
// reference. Ordering: everything runs on `stream`; operands may be reused behind it.
#pragma once

#include "kernels/arguments.h"

namespace strake::kernels {

// y = x weight^T + bias.  x [M, K], weight [N, K], bias [N] or undefined, y [M, N].
void linear_forward(Stream& stream, Label label, const Tensor& y, const Tensor& x, const Tensor& weight,
                    const Tensor& bias);

// dweight (+)= dy^T x, dbias (+)= column sums of dy (skipped if dbias is undefined).
// dweight [N, K], dbias [N], dy [M, N], x [M, K].
void linear_backward_weight(Stream& stream, Label label, const Tensor& dweight, const Tensor& dbias, const Tensor& dy,
                            const Tensor& x, Accumulate accumulate);

// dx = dy weight.  dx [M, K], dy [M, N], weight [N, K].
void linear_backward_input(Stream& stream, Label label, const Tensor& dx, const Tensor& dy, const Tensor& weight);

}  // namespace strake::kernels
