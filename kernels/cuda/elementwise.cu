// GELU, addition, casts. Bound by memory: 16-byte accesses.
#include <type_traits>

#include "kernels/cuda/body.h"
#include "kernels/cuda/device_code.cuh"
#include "kernels/cuda/gelu.h"
#include "kernels/elementwise.h"

namespace strake::kernels {
namespace {

using namespace cuda;

constexpr int kThreads = 256;

// tanh through exp: wrong by a few ulp of 1, where tanh.approx has 2^-11. It and its square are only added to 1.
__device__ inline float tanh_of(float x) {
  const float e = __expf(-2.0f * fabsf(x));
  return copysignf((1.0f - e) / (1.0f + e), x);
}

constexpr float kSqrt2OverPi = 0.7978845608028654f;
constexpr float kCubic = 0.044715f;

__device__ inline float gelu_of(float x) {
  return 0.5f * x * (1.0f + tanh_of(kSqrt2OverPi * (x + kCubic * x * x * x)));
}

__device__ inline float gelu_slope(float x) {
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

struct GeluFunction {
  __device__ float operator()(float x, float) const { return gelu_of(x); }
};
struct GeluSlope {
  __device__ float operator()(float dy, float x) const { return dy * gelu_slope(x); }
};
struct Sum {
  __device__ float operator()(float a, float b) const { return a + b; }
};

template <bool Binary, typename Function>
void map(cudaStream_t stream, DType type, void* out, const void* a, const void* b, std::int64_t elems,
         Function function) {
  if (elems == 0) return;
  with_type(type, [&]<typename T>() {
    map_kernel<T, Binary><<<blocks_for(elems, kThreads * Vector<T>::kElems), kThreads, 0, stream>>>(
        static_cast<T*>(out), static_cast<const T*>(a), static_cast<const T*>(b), elems, function);
  });
}

// With the sums of a bias gradient: a thread takes a vector of columns over one of kSlices parts of the rows.
constexpr int kSliceThreads = 64;

template <typename T>
__global__ void __launch_bounds__(kSliceThreads)
    gelu_bias_kernel(T* dx, float* partials, const T* dy, const T* x, std::int64_t rows, std::int64_t columns) {
  using V = Vector<T>;
  const std::int64_t column = (blockIdx.x * static_cast<std::int64_t>(kSliceThreads) + threadIdx.x) * V::kElems;
  if (column >= columns) return;
  const std::int64_t per_slice = (rows + kColumnSlices - 1) / kColumnSlices;
  const std::int64_t begin = blockIdx.y * per_slice, end = begin + per_slice < rows ? begin + per_slice : rows;
  float sums[V::kElems] = {};
#pragma unroll 4
  for (std::int64_t row = begin; row < end; ++row) {
    const std::int64_t from = row * columns + column;
    const V grad = V::load_streaming(dy + from), in = V::load_streaming(x + from);
    V out;
#pragma unroll
    for (int i = 0; i < V::kElems; ++i) {
      out.values[i] = from_float<T>(to_float(grad.values[i]) * gelu_slope(to_float(in.values[i])));
      sums[i] += to_float(out.values[i]);
    }
    out.store(dx + from);
  }
#pragma unroll
  for (int i = 0; i < V::kElems; ++i) partials[blockIdx.y * columns + column + i] = sums[i];
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

}  // namespace

namespace cuda {

void gelu(cudaStream_t stream, DType type, void* y, const void* x, std::int64_t elems) {
  map<false>(stream, type, y, x, nullptr, elems, GeluFunction{});
}

void gelu_gradient(cudaStream_t stream, DType type, void* dx, const void* dy, const void* x, std::int64_t elems) {
  map<true>(stream, type, dx, dy, x, elems, GeluSlope{});
}

void gelu_gradient(cudaStream_t stream, DType type, void* dx, const void* dy, const void* x, std::int64_t rows,
                   std::int64_t columns, const ColumnSums& sums, void* workspace) {
  if (columns % static_cast<std::int64_t>(16 / size_bytes(type)) != 0) {
    gelu_gradient(stream, type, dx, dy, x, rows * columns);
    return column_sums(stream, sums, type, dx, rows, columns, workspace);
  }
  auto* const partials = static_cast<float*>(workspace);
  with_type(type, [&]<typename T>() {
    const dim3 grid(blocks_for(columns, kSliceThreads * Vector<T>::kElems), kColumnSlices);
    gelu_bias_kernel<<<grid, kSliceThreads, 0, stream>>>(static_cast<T*>(dx), partials, static_cast<const T*>(dy),
                                                         static_cast<const T*>(x), rows, columns);
  });
  combine_column_sums(stream, sums, partials, columns);
}

}  // namespace cuda

Body GeluForward::on_cuda(Device&, Operation&) const {
  check_type(x.dtype());
  return untyped_body([*this](cudaStream_t stream, void*) { gelu(stream, x.dtype(), at(y), at(x), x.elems()); });
}

Body GeluBackward::on_cuda(Device&, Operation& operation) const {
  check_type(x.dtype());
  if (dbias.defined()) operation.workspace_bytes = column_sums_workspace_bytes(x.size(1));
  return untyped_body([*this](cudaStream_t stream, void* workspace) {
    if (!dbias.defined()) return gelu_gradient(stream, x.dtype(), at(dx), at(dy), at(x), x.elems());
    gelu_gradient(stream, x.dtype(), at(dx), at(dy), at(x), x.size(0), x.size(1),
                  {at(dbias), dbias.dtype(), accumulate == Accumulate::kAdd}, workspace);
  });
}

Body Add::on_cuda(Device&, Operation&) const {
  check_type(a.dtype());
  return untyped_body(
      [*this](cudaStream_t stream, void*) { map<true>(stream, a.dtype(), at(y), at(a), at(b), a.elems(), Sum{}); });
}

Body Cast::on_cuda(Device&, Operation&) const {
  STRAKE_CHECK(dst.dtype() != src.dtype(), "cast to the same type");
  return body(dst.dtype(), [*this]<typename To>(cudaStream_t stream, void*) {
    using From = std::conditional_t<std::is_same_v<To, float>, __nv_bfloat16, float>;
    const std::int64_t elems = src.elems();
    if (elems == 0) return;
    cast_kernel<<<blocks_for(elems, kThreads * 4), kThreads, 0, stream>>>(at<To>(dst), at<const From>(src), elems);
  });
}

}  // namespace strake::kernels
