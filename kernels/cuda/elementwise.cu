// GELU, addition, casts, and the column sums of bias gradients. Bound by memory: 16-byte accesses.
#include "kernels/cuda/device_code.cuh"
#include "kernels/cuda/launches.h"

namespace strake::kernels::cuda {
namespace {

constexpr int kThreads = 256;

// tanh through exp: wrong by a few ulp of 1, where tanh.approx has 2^-11. It and its square are only added to 1.
__device__ inline float tanh_of(float x) {
  const float e = __expf(-2.0f * fabsf(x));
  return copysignf((1.0f - e) / (1.0f + e), x);
}

constexpr float kSqrt2OverPi = 0.7978845608028654f;
constexpr float kCubic = 0.044715f;

__device__ inline float gelu(float x) { return 0.5f * x * (1.0f + tanh_of(kSqrt2OverPi * (x + kCubic * x * x * x))); }

__device__ inline float gelu_gradient(float x) {
  const float t = tanh_of(kSqrt2OverPi * (x + kCubic * x * x * x));
  return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * kSqrt2OverPi * (1.0f + 3.0f * kCubic * x * x);
}

// out[i] = function(a[i], b[i]); b may be null. The last, partial vector goes element by element.
template <typename T, bool Binary, typename Function>
__global__ void __launch_bounds__(kThreads)
    map_kernel(T* out, const T* a, const T* b, std::int64_t elems, Function function) {
  using V = Vector<T>;
  const std::int64_t begin = (blockIdx.x * static_cast<std::int64_t>(kThreads) + threadIdx.x) * V::kElems;
  if (begin + V::kElems <= elems) {
    const V left = V::load_streaming(a + begin);
    V right{};
    if constexpr (Binary) right = V::load_streaming(b + begin);
    V result;
#pragma unroll
    for (int i = 0; i < V::kElems; ++i)
      result.values[i] = from_float<T>(function(to_float(left.values[i]), to_float(right.values[i])));
    result.store(out + begin);
  } else {
    for (std::int64_t i = begin; i < elems; ++i) {
      out[i] = from_float<T>(function(to_float(a[i]), Binary ? to_float(b[i]) : 0.0f));
    }
  }
}

struct Gelu {
  __device__ float operator()(float x, float) const { return gelu(x); }
};
struct GeluBackward {
  __device__ float operator()(float dy, float x) const { return dy * gelu_gradient(x); }
};
struct Add {
  __device__ float operator()(float a, float b) const { return a + b; }
};

template <bool Binary, typename Function>
void map(cudaStream_t stream, Type type, void* out, const void* a, const void* b, std::int64_t elems,
         Function function) {
  if (elems == 0) return;
  if (type == Type::kBF16) {
    using T = __nv_bfloat16;
    map_kernel<T, Binary><<<blocks_for(elems, kThreads * Vector<T>::kElems), kThreads, 0, stream>>>(
        static_cast<T*>(out), static_cast<const T*>(a), static_cast<const T*>(b), elems, function);
  } else {
    map_kernel<float, Binary><<<blocks_for(elems, kThreads * Vector<float>::kElems), kThreads, 0, stream>>>(
        static_cast<float*>(out), static_cast<const float*>(a), static_cast<const float*>(b), elems, function);
  }
}

template <typename To, typename From>
__global__ void __launch_bounds__(kThreads) cast_kernel(To* dst, const From* src, std::int64_t elems) {
  constexpr int kElems = 4;
  const std::int64_t begin = (blockIdx.x * static_cast<std::int64_t>(kThreads) + threadIdx.x) * kElems;
#pragma unroll
  for (int i = 0; i < kElems; ++i) {
    if (begin + i < elems) dst[begin + i] = from_float<To>(to_float(src[begin + i]));
  }
}

// Rows are cut into kSlices parts; a thread sums one vector of columns over one part, the second kernel adds the parts
// in order.
constexpr int kSlices = 128;
constexpr int kSliceThreads = 64;

template <typename T>
__global__ void __launch_bounds__(kSliceThreads)
    column_partial_kernel(float* partials, const T* dy, std::int64_t rows, std::int64_t columns) {
  using V = Vector<T>;
  const std::int64_t column = (blockIdx.x * static_cast<std::int64_t>(kSliceThreads) + threadIdx.x) * V::kElems;
  if (column >= columns) return;
  const std::int64_t per_slice = (rows + kSlices - 1) / kSlices;
  const std::int64_t begin = blockIdx.y * per_slice;
  const std::int64_t end = begin + per_slice < rows ? begin + per_slice : rows;
  const bool whole = column + V::kElems <= columns && columns % V::kElems == 0;
  float sums[V::kElems] = {};
  if (whole) {
#pragma unroll 4
    for (std::int64_t row = begin; row < end; ++row) {
      const V in = V::load(dy + row * columns + column);
#pragma unroll
      for (int i = 0; i < V::kElems; ++i) sums[i] += to_float(in.values[i]);
    }
  } else {
    for (std::int64_t row = begin; row < end; ++row) {
      for (int i = 0; i < V::kElems && column + i < columns; ++i) sums[i] += to_float(dy[row * columns + column + i]);
    }
  }
  for (int i = 0; i < V::kElems && column + i < columns; ++i) partials[blockIdx.y * columns + column + i] = sums[i];
}

template <typename Out>
__global__ void column_combine_kernel(Out* dbias, const float* partials, bool accumulate, std::int64_t columns) {
  const std::int64_t column = blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x;
  if (column >= columns) return;
  float total = 0;
#pragma unroll 8
  for (int slice = 0; slice < kSlices; ++slice) total += partials[slice * columns + column];
  if (accumulate) total += to_float(dbias[column]);
  dbias[column] = from_float<Out>(total);
}

}  // namespace

cudaError_t find_code() {
  cudaFuncAttributes attributes;
  return cudaFuncGetAttributes(&attributes, column_combine_kernel<float>);
}

void gelu_forward(cudaStream_t stream, Type type, void* y, const void* x, std::int64_t elems) {
  map<false>(stream, type, y, x, nullptr, elems, Gelu{});
}
void gelu_backward(cudaStream_t stream, Type type, void* dx, const void* dy, const void* x, std::int64_t elems) {
  map<true>(stream, type, dx, dy, x, elems, GeluBackward{});
}
void add(cudaStream_t stream, Type type, void* y, const void* a, const void* b, std::int64_t elems) {
  map<true>(stream, type, y, a, b, elems, Add{});
}

void cast(cudaStream_t stream, Operand dst, Operand src, std::int64_t elems) {
  if (elems == 0) return;
  const int blocks = blocks_for(elems, kThreads * 4);
  if (dst.type == Type::kBF16) {
    cast_kernel<<<blocks, kThreads, 0, stream>>>(static_cast<__nv_bfloat16*>(dst.address),
                                                 static_cast<const float*>(src.address), elems);
  } else {
    cast_kernel<<<blocks, kThreads, 0, stream>>>(static_cast<float*>(dst.address),
                                                 static_cast<const __nv_bfloat16*>(src.address), elems);
  }
}

std::size_t column_sum_workspace_bytes(std::int64_t columns) {
  return kSlices * static_cast<std::size_t>(columns) * sizeof(float);
}

void column_sum(cudaStream_t stream, Operand dbias, Type type, const void* dy, bool accumulate, std::int64_t rows,
                std::int64_t columns, void* workspace) {
  auto* partials = static_cast<float*>(workspace);
  if (type == Type::kBF16) {
    const dim3 grid(blocks_for(columns, kSliceThreads * Vector<__nv_bfloat16>::kElems), kSlices);
    column_partial_kernel<<<grid, kSliceThreads, 0, stream>>>(partials, static_cast<const __nv_bfloat16*>(dy), rows,
                                                              columns);
  } else {
    const dim3 grid(blocks_for(columns, kSliceThreads * Vector<float>::kElems), kSlices);
    column_partial_kernel<<<grid, kSliceThreads, 0, stream>>>(partials, static_cast<const float*>(dy), rows, columns);
  }
  const int blocks = blocks_for(columns, 128);
  if (dbias.type == Type::kBF16) {
    column_combine_kernel<<<blocks, 128, 0, stream>>>(static_cast<__nv_bfloat16*>(dbias.address), partials, accumulate,
                                                      columns);
  } else {
    column_combine_kernel<<<blocks, 128, 0, stream>>>(static_cast<float*>(dbias.address), partials, accumulate,
                                                      columns);
  }
}

}  // namespace strake::kernels::cuda
