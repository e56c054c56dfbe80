// Causal attention. bf16 goes through cuDNN. f32 is written plainly, for parity tests of small models: one warp a query
// (forward, d_q) or a key (d_k, d_v).
#include <cmath>

#include "kernels/attention.h"
#include "kernels/cuda/body.h"
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/device_code.cuh"
#include "kernels/device_limits.h"

namespace strake::kernels {
namespace {

using namespace cuda;

constexpr int kMaxPerLane = 8;  // head sizes up to 256
static_assert(kMaxPerLane * kWarp == limits_of(DeviceKind::kCuda, DType::kF32).most_head_size);

struct Geometry {
  int length, heads, group, head_size;  // group: query heads that share a key head
  float scale;

  explicit Geometry(const AttentionShape& shape)
      : length(static_cast<int>(shape.length)),
        heads(static_cast<int>(shape.heads)),
        group(static_cast<int>(shape.heads / shape.kv_heads)),
        head_size(static_cast<int>(shape.head_size)),
        scale(1.0f / std::sqrt(static_cast<float>(shape.head_size))) {}

  // Row t of head h in batch b of out and dout, and its place in stats.
  __device__ std::int64_t out(int b, int t, int h) const {
    return ((static_cast<std::int64_t>(b) * length + t) * heads + h) * head_size;
  }
  __device__ std::int64_t stat(int b, int t, int h) const {
    return (static_cast<std::int64_t>(b) * heads + h) * length + t;
  }
};

template <typename T>
__device__ T* row(const Heads<T>& heads, int b, int t, int h) {
  return heads.data + b * heads.stride.batch + t * heads.stride.token + h * heads.stride.head;
}

__device__ float dot(const float* a, const float* b, int size) {
  float sum = 0;
  for (int i = threadIdx.x; i < size; i += kWarp) sum += a[i] * b[i];
  return warp_sum(sum);
}

__global__ void forward_kernel(float* out, float* stats, Heads<const float> q, Heads<const float> k,
                               Heads<const float> v, Geometry g) {
  const int t = blockIdx.x, h = blockIdx.y, b = blockIdx.z, kv = h / g.group;
  const float* q_row = row(q, b, t, h);
  float largest = -INFINITY, sum = 0, values[kMaxPerLane] = {};
  for (int s = 0; s <= t; ++s) {
    const float score = dot(q_row, row(k, b, s, kv), g.head_size) * g.scale;
    const float next = fmaxf(largest, score), keep = expf(largest - next), weight = expf(score - next);
    const float* v_row = row(v, b, s, kv);
    for (int i = 0; i < kMaxPerLane; ++i) {
      const int column = i * kWarp + threadIdx.x;
      if (column < g.head_size) values[i] = values[i] * keep + weight * v_row[column];
    }
    sum = sum * keep + weight;
    largest = next;
  }
  for (int i = 0; i < kMaxPerLane; ++i) {
    const int column = i * kWarp + threadIdx.x;
    if (column < g.head_size) out[g.out(b, t, h) + column] = values[i] / sum;
  }
  if (threadIdx.x == 0) stats[g.stat(b, t, h)] = largest + logf(sum);
}

__global__ void query_gradient_kernel(Heads<float> dq, const float* dout, Heads<const float> q, Heads<const float> k,
                                      Heads<const float> v, const float* out, const float* stats, Geometry g) {
  const int t = blockIdx.x, h = blockIdx.y, b = blockIdx.z, kv = h / g.group;
  const float* q_row = row(q, b, t, h);
  const float* d = dout + g.out(b, t, h);
  const float shift = stats[g.stat(b, t, h)];
  const float delta = dot(d, out + g.out(b, t, h), g.head_size);
  float values[kMaxPerLane] = {};
  for (int s = 0; s <= t; ++s) {
    const float* k_row = row(k, b, s, kv);
    const float p = expf(dot(q_row, k_row, g.head_size) * g.scale - shift);
    const float ds = p * (dot(d, row(v, b, s, kv), g.head_size) - delta) * g.scale;
    for (int i = 0; i < kMaxPerLane; ++i) {
      const int column = i * kWarp + threadIdx.x;
      if (column < g.head_size) values[i] += ds * k_row[column];
    }
  }
  float* dq_row = row(dq, b, t, h);
  for (int i = 0; i < kMaxPerLane; ++i) {
    const int column = i * kWarp + threadIdx.x;
    if (column < g.head_size) dq_row[column] = values[i];
  }
}

// Of a key head: its query heads in order, of each the tokens from its own on.
__global__ void key_gradient_kernel(Heads<float> dk_out, Heads<float> dv_out, const float* dout, Heads<const float> q,
                                    Heads<const float> k, Heads<const float> v, const float* out, const float* stats,
                                    Geometry g) {
  const int s = blockIdx.x, kv = blockIdx.y, b = blockIdx.z;
  const float* k_row = row(k, b, s, kv);
  const float* v_row = row(v, b, s, kv);
  float dk[kMaxPerLane] = {}, dv[kMaxPerLane] = {};
  for (int h = kv * g.group; h < (kv + 1) * g.group; ++h) {
    for (int t = s; t < g.length; ++t) {
      const float* q_row = row(q, b, t, h);
      const float* d = dout + g.out(b, t, h);
      const float p = expf(dot(q_row, k_row, g.head_size) * g.scale - stats[g.stat(b, t, h)]);
      const float delta = dot(d, out + g.out(b, t, h), g.head_size);
      const float ds = p * (dot(d, v_row, g.head_size) - delta) * g.scale;
      for (int i = 0; i < kMaxPerLane; ++i) {
        const int column = i * kWarp + threadIdx.x;
        if (column < g.head_size) {
          dk[i] += ds * q_row[column];
          dv[i] += p * d[column];
        }
      }
    }
  }
  float* dk_row = row(dk_out, b, s, kv);
  float* dv_row = row(dv_out, b, s, kv);
  for (int i = 0; i < kMaxPerLane; ++i) {
    const int column = i * kWarp + threadIdx.x;
    if (column < g.head_size) {
      dk_row[column] = dk[i];
      dv_row[column] = dv[i];
    }
  }
}

void check_shape(const AttentionShape& shape, DType dtype) {
  check_head_size("attention", dtype, shape.head_size);
  check_tokens("attention", dtype, shape.batch, shape.batch * shape.length);
}

template <typename T>
Heads<T> heads_of(const Tensor& view) {
  return {at<T>(view), head_strides(view)};
}
dim3 grid_of(const AttentionShape& shape, std::int64_t heads) {
  return dim3(static_cast<unsigned>(shape.length), static_cast<unsigned>(heads), static_cast<unsigned>(shape.batch));
}

CudnnAttentions::Forward problem_of(const Tensor& q, const Tensor& k, const Tensor& v) {
  return {attention_shape(q, k), head_strides(q), head_strides(k), head_strides(v)};
}

}  // namespace

Body AttentionForward::on_cuda(Device& device, Operation& operation) const {
  const AttentionShape shape = attention_shape(q, k);
  check_shape(shape, q.dtype());
  if (q.dtype() == DType::kF32) {
    return untyped_body([=, *this](cudaStream_t stream, void*) {
      forward_kernel<<<grid_of(shape, shape.heads), kWarp, 0, stream>>>(
          at<float>(out), at<float>(stats), heads_of<const float>(q), heads_of<const float>(k),
          heads_of<const float>(v), Geometry(shape));
    });
  }
  CudnnAttentions& attentions = CudaKernels::of(device).attentions();
  const CudnnAttentions::Forward problem = problem_of(q, k, v);
  operation.workspace_bytes = attentions.prepare(problem);
  return untyped_body([=, *this, &attentions](cudaStream_t stream, void* workspace) {
    attentions.run(stream, problem, at(out), at<float>(stats), at(q), at(k), at(v), workspace);
  });
}

Body AttentionBackward::on_cuda(Device& device, Operation& operation) const {
  const AttentionShape shape = attention_shape(q, k);
  check_shape(shape, q.dtype());
  if (q.dtype() == DType::kF32) {
    return untyped_body([=, *this](cudaStream_t stream, void*) {
      const Heads<const float> qs = heads_of<const float>(q), ks = heads_of<const float>(k),
                               vs = heads_of<const float>(v);
      const Geometry geometry(shape);
      query_gradient_kernel<<<grid_of(shape, shape.heads), kWarp, 0, stream>>>(
          heads_of<float>(dq), at<const float>(dout), qs, ks, vs, at<const float>(out), at<const float>(stats),
          geometry);
      key_gradient_kernel<<<grid_of(shape, shape.kv_heads), kWarp, 0, stream>>>(
          heads_of<float>(dk), heads_of<float>(dv), at<const float>(dout), qs, ks, vs, at<const float>(out),
          at<const float>(stats), geometry);
    });
  }
  CudnnAttentions& attentions = CudaKernels::of(device).attentions();
  const CudnnAttentions::Backward problem = {problem_of(q, k, v), head_strides(dq), head_strides(dk), head_strides(dv)};
  operation.workspace_bytes = attentions.prepare(problem);
  return untyped_body([=, *this, &attentions](cudaStream_t stream, void* workspace) {
    attentions.run(stream, problem, at(dq), at(dk), at(dv), at(dout), at(q), at(k), at(v), at(out),
                   at<const float>(stats), workspace);
  });
}

}  // namespace strake::kernels
