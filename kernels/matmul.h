// Matrix products, forward and backward, with bias: y = x weight^T + bias. Row-major; weight is [out, in], as in
// PyTorch's Linear, or stored the other way round. A product may take GELU (tanh form, kernels/elementwise.h) along: on
// a GPU it is part of the product where that is faster, and what is not stored in between is not rounded either.
//
// f32 on the CPU goes through oneDNN (or the reference where it is not built in); f64 through the
// reference. Ordering: everything runs on `stream`; operands may be reused behind it.
#pragma once

#include "kernels/arguments.h"

namespace strake::kernels {

// How a weight of N outputs and K inputs lies, and its gradient. kInOut is for weights that are cut by input: every cut
// is along axis 0 then.
enum class WeightLayout : std::uint8_t { kOutIn /* [N, K] */, kInOut /* [K, N] */ };

// y = x weight^T + bias, and activated = gelu(y) where that is defined.
struct LinearForward {
  Tensor y;          // [M, N]
  Tensor x;          // [M, K]
  Tensor weight;     // [N, K], see layout
  Tensor bias = {};  // [N] or undefined
  WeightLayout layout = WeightLayout::kOutIn;
  Tensor activated = {};  // [M, N] or undefined

  Body on_cpu(CpuCode code) const;
  Body on_cuda(Device& device, Operation& operation) const;
};
void linear_forward(Stream& stream, Label label, const LinearForward& arguments);

// dweight (+)= dy^T x, dbias (+)= column sums of dy.
struct LinearBackwardWeight {
  Tensor dweight;  // [N, K], see layout
  Tensor dbias;    // [N] or undefined
  Tensor dy;       // [M, N]
  Tensor x;        // [M, K]
  Accumulate accumulate;
  WeightLayout layout = WeightLayout::kOutIn;

  Body on_cpu(CpuCode code) const;
  Body on_cuda(Device& device, Operation& operation) const;
};
void linear_backward_weight(Stream& stream, Label label, const LinearBackwardWeight& arguments);

// dx = dy weight. With gelu_of, what the product multiplied was gelu(gelu_of), and dx is the gradient of gelu_of; then
// there may be dbias (+)= column sums of dx: the gradient of the bias that gelu_of holds.
struct LinearBackwardInput {
  Tensor dx;      // [M, K]
  Tensor dy;      // [M, N]
  Tensor weight;  // [N, K], see layout
  WeightLayout layout = WeightLayout::kOutIn;
  Tensor gelu_of = {};                             // [M, K] or undefined
  Tensor dbias = {};                               // [K] or undefined
  Accumulate accumulate = Accumulate::kOverwrite;  // dbias

  Body on_cpu(CpuCode code) const;
  Body on_cuda(Device& device, Operation& operation) const;
};
void linear_backward_input(Stream& stream, Label label, const LinearBackwardInput& arguments);

}  // namespace strake::kernels
