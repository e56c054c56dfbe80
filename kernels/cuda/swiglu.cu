// SwiGLU. Bound by memory: a thread takes two vectors of (gate, up) pairs, which are one vector of results.
#include "kernels/cuda/body.h"
#include "kernels/cuda/device_code.cuh"
#include "kernels/swiglu.h"

namespace strake::kernels {
namespace {

using namespace cuda;

constexpr int kThreads = 256;

__device__ inline float logistic(float x) { return 1.0f / (1.0f + __expf(-x)); }

__device__ inline float value_of(float gate, float up) { return gate * logistic(gate) * up; }
struct Gradients {
  float gate, up;
};
__device__ inline Gradients gradients_of(float dy, float gate, float up) {
  const float s = logistic(gate);
  return {dy * up * s * (1.0f + gate * (1.0f - s)), dy * gate * s};
}

template <typename T>
__global__ void __launch_bounds__(kThreads) forward_kernel(T* y, const T* x, std::int64_t pairs) {
  using V = Vector<T>;
  const std::int64_t begin = (blockIdx.x * static_cast<std::int64_t>(kThreads) + threadIdx.x) * V::kElems;
  if (begin + V::kElems <= pairs) {
    const V in[2] = {V::load(x + 2 * begin), V::load(x + 2 * begin + V::kElems)};
    V out;
#pragma unroll
    for (int i = 0; i < V::kElems; ++i) {
      const V& from = in[2 * i / V::kElems];
      out.values[i] = from_float<T>(
          value_of(to_float(from.values[2 * i % V::kElems]), to_float(from.values[2 * i % V::kElems + 1])));
    }
    out.store(y + begin);
  } else {
    for (std::int64_t i = begin; i < pairs; ++i)
      y[i] = from_float<T>(value_of(to_float(x[2 * i]), to_float(x[2 * i + 1])));
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads) backward_kernel(T* dx, const T* dy, const T* x, std::int64_t pairs) {
  using V = Vector<T>;
  const std::int64_t begin = (blockIdx.x * static_cast<std::int64_t>(kThreads) + threadIdx.x) * V::kElems;
  if (begin + V::kElems <= pairs) {
    const V in[2] = {V::load(x + 2 * begin), V::load(x + 2 * begin + V::kElems)};
    const V grad = V::load_streaming(dy + begin);
    V out[2];
#pragma unroll
    for (int i = 0; i < V::kElems; ++i) {
      const V& from = in[2 * i / V::kElems];
      const int at = 2 * i % V::kElems;
      const Gradients g =
          gradients_of(to_float(grad.values[i]), to_float(from.values[at]), to_float(from.values[at + 1]));
      out[2 * i / V::kElems].values[at] = from_float<T>(g.gate);
      out[2 * i / V::kElems].values[at + 1] = from_float<T>(g.up);
    }
    out[0].store(dx + 2 * begin);
    out[1].store(dx + 2 * begin + V::kElems);
  } else {
    for (std::int64_t i = begin; i < pairs; ++i) {
      const Gradients g = gradients_of(to_float(dy[i]), to_float(x[2 * i]), to_float(x[2 * i + 1]));
      dx[2 * i] = from_float<T>(g.gate);
      dx[2 * i + 1] = from_float<T>(g.up);
    }
  }
}

}  // namespace

Body SwigluForward::on_cuda(Device&, Operation&) const {
  return body(x.dtype(), [=, *this]<typename T>(cudaStream_t stream, void*) {
    const int blocks = blocks_for(y.elems(), kThreads * Vector<T>::kElems);
    forward_kernel<<<blocks, kThreads, 0, stream>>>(at<T>(y), at<const T>(x), y.elems());
  });
}

Body SwigluBackward::on_cuda(Device&, Operation&) const {
  return body(x.dtype(), [=, *this]<typename T>(cudaStream_t stream, void*) {
    const int blocks = blocks_for(dy.elems(), kThreads * Vector<T>::kElems);
    backward_kernel<<<blocks, kThreads, 0, stream>>>(at<T>(dx), at<const T>(dy), at<const T>(x), dy.elems());
  });
}

}  // namespace strake::kernels
