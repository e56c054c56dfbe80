// What norms over rows share: how the threads of a block hold a row in registers, and the residual add on the way
// there.
#pragma once

#include "kernels/cuda/device_code.cuh"

namespace strake::kernels::cuda {

// `Warps` warps share a row, of which each thread holds `Chunks` vectors: the row has at most
// Chunks * Warps * 32 * Vector<T>::kElems elements.
template <typename T, int Warps, int Chunks>
struct RowShare {
  static constexpr int kWarps = Warps == 1 ? 4 : Warps;  // of a block
  static constexpr int kThreads = kWarps * kWarp;
  static constexpr int kRows = kWarps / Warps;  // at work in a block

  static __device__ std::int64_t first_row() {
    return blockIdx.x * static_cast<std::int64_t>(kRows) + threadIdx.x / kWarp / Warps;
  }
  // Is this the thread that writes what there is one of for a row?
  static __device__ bool leads() { return threadIdx.x % (Warps * kWarp) == 0; }
  // Calls body(chunk, column) for the thread's vectors.
  template <typename Body>
  static __device__ void for_chunks(int channels, Body body) {
#pragma unroll
    for (int chunk = 0; chunk < Chunks; ++chunk) {
      const int column = (chunk * Warps * kWarp + threadIdx.x % (Warps * kWarp)) * Vector<T>::kElems;
      if (column < channels) body(chunk, column);
    }
  }
  // Over the row; every thread gets it. `cells`: shared memory of 32 values, which one warp alone does not use.
  static __device__ float sum(float value, float* cells) {
    return Warps == 1 ? warp_sum(value) : block_sum(value, cells);
  }
};

// The vector of x at `at` or, where Residual, x + delta: rounded, as backward will read it from x_out, which gets it.
template <bool Residual, typename T>
__device__ inline Vector<T> load_sum(const T* x, const T* delta, T* x_out, std::int64_t at) {
  Vector<T> in = Vector<T>::load(x + at);
  if constexpr (Residual) {
    const Vector<T> more = Vector<T>::load_streaming(delta + at);
#pragma unroll
    for (int i = 0; i < Vector<T>::kElems; ++i)
      in.values[i] = from_float<T>(to_float(in.values[i]) + to_float(more.values[i]));
    in.store(x_out + at);
  }
  return in;
}

}  // namespace strake::kernels::cuda
