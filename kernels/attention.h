// Causal self-attention with a softmax scale of 1/sqrt(head size), reading Q, K, V as strided views of
// one packed projection output and writing their gradients into one packed buffer.
#pragma once

#include "runtime/device/device.h"

namespace strake::kernels {

// qkv [B, T, 3*C]: q, k, v beside each other, each C = heads * head_size, head-major.
// out [B, T, C]; stats [B, heads, T]: log-sum-exp of each row's scaled scores (f32; f64 when qkv is f64), for backward.
void attention_forward(Stream& stream, Label label, const Tensor& out, const Tensor& stats, const Tensor& qkv,
                       int heads);

// dqkv [B, T, 3*C] is overwritten. scratch: attention_backward_scratch_elems(...) elements of qkv's dtype
// (f32 for bf16), undefined when that is 0.
void attention_backward(Stream& stream, Label label, const Tensor& dqkv, const Tensor& dout, const Tensor& qkv,
                        const Tensor& out, const Tensor& stats, const Tensor& scratch, int heads);
std::int64_t attention_backward_scratch_elems(DeviceKind device, std::int64_t batch, std::int64_t tokens,
                                              std::int64_t channels, int heads);

}  // namespace strake::kernels
