// Building blocks of CUDA kernels: 16-byte vectors of f32 or bf16, reductions in a fixed order.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace strake::kernels::cuda {

// 16 bytes of T, converted to float on load and rounded to nearest even on store.
template <typename T>
struct alignas(16) Vector {
  static constexpr int kElems = 16 / sizeof(T);
  T values[kElems];

  static __device__ Vector load(const T* from) { return *reinterpret_cast<const Vector*>(from); }
  // For data that is read once: does not displace what others will read again.
  static __device__ Vector load_streaming(const T* from) {
    const int4 bits = __ldcs(reinterpret_cast<const int4*>(from));
    return reinterpret_cast<const Vector&>(bits);
  }
  __device__ void store(T* to) const { *reinterpret_cast<Vector*>(to) = *this; }
  __device__ void store_streaming(T* to) const {
    __stcs(reinterpret_cast<int4*>(to), reinterpret_cast<const int4&>(*this));
  }
};

__device__ inline float to_float(float value) { return value; }
__device__ inline float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }

template <typename T>
__device__ inline T from_float(float value);
template <>
__device__ inline float from_float<float>(float value) {
  return value;
}
template <>
__device__ inline __nv_bfloat16 from_float<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

// Butterfly sums: every lane gets the sum, always added in the same order.
__device__ inline float warp_sum(float value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}
__device__ inline double warp_sum(double value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}
__device__ inline float warp_max(float value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, offset));
  return value;
}

// Over a block of at most 1024 threads, a whole number of warps; every thread gets the result. `cells` is shared memory
// of 32 values; the call ends with a barrier, so it may be used again at once.
template <typename Value, typename Warp>
__device__ inline Value block_combine(Value value, Value* cells, Value neutral, Warp warp_combine) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  value = warp_combine(value);
  if (lane == 0) cells[warp] = value;
  __syncthreads();
  value = warp_combine(lane < warps ? cells[lane] : neutral);
  __syncthreads();
  return value;
}
template <typename Value>
__device__ inline Value block_sum(Value value, Value* cells) {
  return block_combine(value, cells, Value(0), [](Value v) { return warp_sum(v); });
}
__device__ inline float block_max(float value, float* cells) {
  return block_combine(value, cells, -INFINITY, [](float v) { return warp_max(v); });
}

constexpr int kWarp = 32;

}  // namespace strake::kernels::cuda
