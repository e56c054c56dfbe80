// Causal attention in f32, written plainly: one warp a query (forward, d_q) or a key (d_k, d_v). For parity tests of
// small models; training in bf16 goes through cuDNN.
#include "kernels/cuda/attention.h"
#include "kernels/cuda/device_code.cuh"
#include "kernels/cuda/launches.h"

namespace strake::kernels::cuda {
namespace {

constexpr int kMaxPerLane = 8;  // head sizes up to 256

struct Geometry {
  int sequence, heads, head_size;
  float scale;
  // Row t of part (0: q, 1: k, 2: v) of head h in batch b, in a packed buffer.
  __device__ std::int64_t packed(int b, int t, int part, int h) const {
    return ((static_cast<std::int64_t>(b) * sequence + t) * 3 + part) * heads * head_size + h * head_size;
  }
  __device__ std::int64_t plain(int b, int t, int h) const {
    return (static_cast<std::int64_t>(b) * sequence + t) * heads * head_size + h * head_size;
  }
};

__device__ float dot(const float* a, const float* b, int size) {
  float sum = 0;
  for (int i = threadIdx.x; i < size; i += kWarp) sum += a[i] * b[i];
  return warp_sum(sum);
}

__global__ void forward_kernel(float* out, float* stats, const float* qkv, Geometry g) {
  const int t = blockIdx.x, h = blockIdx.y, b = blockIdx.z;
  const float* q = qkv + g.packed(b, t, 0, h);
  float largest = -INFINITY, sum = 0, values[kMaxPerLane] = {};
  for (int s = 0; s <= t; ++s) {
    const float score = dot(q, qkv + g.packed(b, s, 1, h), g.head_size) * g.scale;
    const float next = fmaxf(largest, score), keep = expf(largest - next), weight = expf(score - next);
    const float* v = qkv + g.packed(b, s, 2, h);
    for (int i = 0; i < kMaxPerLane; ++i) {
      const int column = i * kWarp + threadIdx.x;
      if (column < g.head_size) values[i] = values[i] * keep + weight * v[column];
    }
    sum = sum * keep + weight;
    largest = next;
  }
  for (int i = 0; i < kMaxPerLane; ++i) {
    const int column = i * kWarp + threadIdx.x;
    if (column < g.head_size) out[g.plain(b, t, h) + column] = values[i] / sum;
  }
  if (threadIdx.x == 0) stats[(static_cast<std::int64_t>(b) * g.heads + h) * g.sequence + t] = largest + logf(sum);
}

__global__ void query_gradient_kernel(float* dqkv, const float* dout, const float* qkv, const float* out,
                                      const float* stats, Geometry g) {
  const int t = blockIdx.x, h = blockIdx.y, b = blockIdx.z;
  const float* q = qkv + g.packed(b, t, 0, h);
  const float* d = dout + g.plain(b, t, h);
  const float shift = stats[(static_cast<std::int64_t>(b) * g.heads + h) * g.sequence + t];
  const float delta = dot(d, out + g.plain(b, t, h), g.head_size);
  float values[kMaxPerLane] = {};
  for (int s = 0; s <= t; ++s) {
    const float* k = qkv + g.packed(b, s, 1, h);
    const float p = expf(dot(q, k, g.head_size) * g.scale - shift);
    const float ds = p * (dot(d, qkv + g.packed(b, s, 2, h), g.head_size) - delta) * g.scale;
    for (int i = 0; i < kMaxPerLane; ++i) {
      const int column = i * kWarp + threadIdx.x;
      if (column < g.head_size) values[i] += ds * k[column];
    }
  }
  for (int i = 0; i < kMaxPerLane; ++i) {
    const int column = i * kWarp + threadIdx.x;
    if (column < g.head_size) dqkv[g.packed(b, t, 0, h) + column] = values[i];
  }
}

__global__ void key_gradient_kernel(float* dqkv, const float* dout, const float* qkv, const float* out,
                                    const float* stats, Geometry g) {
  const int s = blockIdx.x, h = blockIdx.y, b = blockIdx.z;
  const float* k = qkv + g.packed(b, s, 1, h);
  const float* v = qkv + g.packed(b, s, 2, h);
  float dk[kMaxPerLane] = {}, dv[kMaxPerLane] = {};
  for (int t = s; t < g.sequence; ++t) {
    const float* q = qkv + g.packed(b, t, 0, h);
    const float* d = dout + g.plain(b, t, h);
    const float p =
        expf(dot(q, k, g.head_size) * g.scale - stats[(static_cast<std::int64_t>(b) * g.heads + h) * g.sequence + t]);
    const float delta = dot(d, out + g.plain(b, t, h), g.head_size);
    const float ds = p * (dot(d, v, g.head_size) - delta) * g.scale;
    for (int i = 0; i < kMaxPerLane; ++i) {
      const int column = i * kWarp + threadIdx.x;
      if (column < g.head_size) {
        dk[i] += ds * q[column];
        dv[i] += p * d[column];
      }
    }
  }
  for (int i = 0; i < kMaxPerLane; ++i) {
    const int column = i * kWarp + threadIdx.x;
    if (column < g.head_size) {
      dqkv[g.packed(b, s, 1, h) + column] = dk[i];
      dqkv[g.packed(b, s, 2, h) + column] = dv[i];
    }
  }
}

Geometry geometry_of(const AttentionShape& shape) {
  return {static_cast<int>(shape.sequence), static_cast<int>(shape.heads), static_cast<int>(shape.head_size),
          1.0f / sqrtf(static_cast<float>(shape.head_size))};
}
dim3 grid_of(const AttentionShape& shape) {
  return dim3(static_cast<unsigned>(shape.sequence), static_cast<unsigned>(shape.heads),
              static_cast<unsigned>(shape.batch));
}

}  // namespace

void plain_attention_forward(cudaStream_t stream, const AttentionShape& shape, float* out, float* stats,
                             const float* qkv) {
  forward_kernel<<<grid_of(shape), kWarp, 0, stream>>>(out, stats, qkv, geometry_of(shape));
}

void plain_attention_backward(cudaStream_t stream, const AttentionShape& shape, float* dqkv, const float* dout,
                              const float* qkv, const float* out, const float* stats) {
  query_gradient_kernel<<<grid_of(shape), kWarp, 0, stream>>>(dqkv, dout, qkv, out, stats, geometry_of(shape));
  key_gradient_kernel<<<grid_of(shape), kWarp, 0, stream>>>(dqkv, dout, qkv, out, stats, geometry_of(shape));
}

}  // namespace strake::kernels::cuda
