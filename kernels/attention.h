// Causal self-attention with a softmax scale of 1/sqrt(head size). Queries, keys and values are strided views of what a
// projection wrote (kernels/qkv_layout.h); several query heads may share one key and value head.
#pragma once

#include <compare>

#include "kernels/arguments.h"

namespace strake::kernels {

// out = softmax(q k^T / sqrt(D)) v, each query with the keys up to its own place. q, k, v: strided views, the last axis
// of which is contiguous. H is a multiple of KV: query head h reads key and value head h / (H / KV).
struct AttentionForward {
  Tensor out;    // [B, T, H * D], head by head
  Tensor stats;  // [B, H, T]: log-sum-exp of each row's scaled scores (f32; f64 when q is f64)
  Tensor q;      // [B, T, H, D]
  Tensor k, v;   // [B, T, KV, D]

  Body on_cpu(CpuCode code) const;
  Body on_cuda(Device& device, Operation& operation) const;
};
void attention_forward(Stream& stream, Label label, const AttentionForward& arguments);

struct AttentionBackward {
  Tensor dq, dk, dv;  // of the shapes of q, k, v, strides of their own: overwritten
  Tensor dout;        // [B, T, H * D]
  Tensor q, k, v;     // of the forward pass
  Tensor out, stats;  // what it wrote
  Tensor scratch;     // attention_backward_scratch_elems(...) elements of q's dtype, undefined when that is 0

  Body on_cpu(CpuCode code) const;
  Body on_cuda(Device& device, Operation& operation) const;
};
void attention_backward(Stream& stream, Label label, const AttentionBackward& arguments);
std::int64_t attention_backward_scratch_elems(DeviceKind device, std::int64_t tokens, std::int64_t head_size);

// What the versions of attention work on. Vector code takes heads up to kMostVectorHeadSize, because its tiles lie on
// the stack; larger ones run the reference.
inline constexpr std::int64_t kMostVectorHeadSize = 256;
struct AttentionShape {
  std::int64_t batch, length, heads, kv_heads, head_size;

  friend auto operator<=>(const AttentionShape&, const AttentionShape&) = default;
};
struct HeadStrides {
  std::int64_t batch, token, head;  // in elements

  friend auto operator<=>(const HeadStrides&, const HeadStrides&) = default;
};
template <typename T>
struct Heads {
  T* data;
  HeadStrides stride;
};
AttentionShape attention_shape(const Tensor& q, const Tensor& k);
HeadStrides head_strides(const Tensor& view);

}  // namespace strake::kernels
