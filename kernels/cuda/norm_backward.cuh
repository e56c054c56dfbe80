// Backward of layer norm and RMS norm: dx += the gradient of a row, and the sums over rows for weight and bias.
//
// A fixed number of blocks takes rows in a fixed pattern and keeps the sums in registers; they meet in shared memory,
// then in a second kernel, always in the same order. While a row is worked on, each thread's vectors of the next are on
// their way into shared memory, so that few warps keep the memory busy.
#pragma once

#include <cuda_pipeline.h>

#include "kernels/cuda/body.h"
#include "kernels/cuda/norm_rows.cuh"

namespace strake::kernels::cuda {

constexpr int kNormBackwardBlocks = 264;  // two a multiprocessor of the largest Hopper parts
constexpr int kNormBackwardWarps = 8, kNormBackwardThreads = kNormBackwardWarps * kWarp;

// Vectors of x, dy and dx of two rows, those of a thread in its own places: nobody else reads them.
template <typename T, int Chunks>
struct RowRing {
  enum Operand { kX, kDy, kDx };
  Vector<T> places[2][3][Chunks][kNormBackwardThreads];

  __device__ Vector<T>& at(int stage, Operand operand, int chunk) { return places[stage][operand][chunk][threadIdx.x]; }
};

template <typename T>
struct NormBackwardOperands {
  T* dx;
  float* partials;
  const T *dy, *x;
  const float *mean, *rstd;
  const T* weight;
  std::int64_t rows;
  int channels;
  bool adds;  // to dx
};

// How many sums over rows are made: of the weight; of the bias, where Centered; of dx, where DxSums.
__host__ __device__ constexpr int norm_sums(bool centered, bool dx_sums) {
  return 1 + (centered ? 1 : 0) + (dx_sums ? 1 : 0);
}
constexpr std::size_t norm_partials_bytes(int sums, std::int64_t channels) {
  return kNormBackwardBlocks * static_cast<std::size_t>(sums) * static_cast<std::size_t>(channels) * sizeof(float);
}

// Centered: layer norm, else RMS norm, which has neither mean nor bias. partials[block][norm_sums][channels].
template <typename T, bool Centered, bool DxSums, int Warps, int Chunks>
__global__ void __launch_bounds__(kNormBackwardThreads, Chunks > 4 ? 1 : 2)
    norm_backward_kernel(const NormBackwardOperands<T> operands) {
  using V = Vector<T>;
  using Ring = RowRing<T, Chunks>;
  constexpr int kGroups = kNormBackwardWarps / Warps, kGroupThreads = Warps * kWarp;  // a group has a row
  extern __shared__ __align__(16) std::byte shared[];
  __shared__ float2 cells[2][kNormBackwardWarps];
  Ring& ring = *reinterpret_cast<Ring*>(shared);
  const auto [dx, partials, dy, x, mean_in, rstd_in, weight, rows, channels, adds] = operands;
  const int group = static_cast<int>(threadIdx.x) / kGroupThreads;
  const int first_column = static_cast<int>(threadIdx.x) % kGroupThreads * V::kElems;
  const auto for_chunks = [&](int columns, auto body) {
#pragma unroll
    for (int chunk = 0; chunk < Chunks; ++chunk) {
      const int column = first_column + chunk * kGroupThreads * V::kElems;
      if (column < columns) body(chunk, column);
    }
  };
  const auto fetch = [&](std::int64_t row, int stage) {
    for_chunks(row < rows ? channels : 0, [&](int chunk, int column) {
      const std::int64_t from = row * channels + column;
      __pipeline_memcpy_async(&ring.at(stage, Ring::kX, chunk), x + from, sizeof(V));
      __pipeline_memcpy_async(&ring.at(stage, Ring::kDy, chunk), dy + from, sizeof(V));
      if (adds) __pipeline_memcpy_async(&ring.at(stage, Ring::kDx, chunk), dx + from, sizeof(V));
    });
    __pipeline_commit();
  };
  // Of both values over the row, in the order of the warps.
  const auto sum_of_row = [&](float2 value, int stage) {
    value = {warp_sum(value.x), warp_sum(value.y)};
    if constexpr (Warps > 1) {
      float2* const of_group = cells[stage] + group * Warps;
      if (threadIdx.x % kWarp == 0) of_group[threadIdx.x % kGroupThreads / kWarp] = value;
      __syncthreads();
      value = of_group[0];
#pragma unroll
      for (int warp = 1; warp < Warps; ++warp) {
        value.x += of_group[warp].x;
        value.y += of_group[warp].y;
      }
    }
    return value;
  };

  // Many sums leave no registers for the weight: it is read again then, from L1.
  constexpr bool kKeepsWeight = norm_sums(Centered, DxSums) * Chunks * V::kElems <= 48;
  V kept_weight[kKeepsWeight ? Chunks : 1];
  float weight_sums[Chunks][V::kElems] = {}, bias_sums[Centered ? Chunks : 1][V::kElems] = {};
  float dx_sums[DxSums ? Chunks : 1][V::kElems] = {};
  if constexpr (kKeepsWeight)
    for_chunks(channels, [&](int chunk, int column) { kept_weight[chunk] = V::load(weight + column); });
  const auto weight_at = [&](int chunk, int column) {
    if constexpr (kKeepsWeight)
      return kept_weight[chunk];
    else
      return V::load(weight + column);
  };
  const std::int64_t first_row = blockIdx.x * static_cast<std::int64_t>(kGroups) + group;
  const std::int64_t stride = gridDim.x * static_cast<std::int64_t>(kGroups);
  const float per_channel = 1.0f / static_cast<float>(channels);

  float mean = 0, rstd = 0;
  if (first_row < rows) {
    rstd = rstd_in[first_row];
    if constexpr (Centered) mean = mean_in[first_row];
  }
  fetch(first_row, 0);
  int stage = 0;
  // Groups of several warps meet in the middle of their rows: those that have none left come along.
  const std::int64_t end = Warps == 1 ? rows : rows + group;
  for (std::int64_t row = first_row; row < end; row += stride, stage ^= 1) {
    const int columns = row < rows ? channels : 0;
    float next_mean = 0, next_rstd = 0;
    if (row + stride < rows) {
      next_rstd = rstd_in[row + stride];
      if constexpr (Centered) next_mean = mean_in[row + stride];
    }
    fetch(row + stride, stage ^ 1);
    __pipeline_wait_prior(1);
    float2 sums = {0, 0};  // of the gradient of the normed row, and of its product with the normed row
    for_chunks(columns, [&](int chunk, int column) {
      const V in = ring.at(stage, Ring::kX, chunk), grad = ring.at(stage, Ring::kDy, chunk);
      const V w = weight_at(chunk, column);
#pragma unroll
      for (int i = 0; i < V::kElems; ++i) {
        const float g = to_float(grad.values[i]), normed = (to_float(in.values[i]) - mean) * rstd;
        const float scaled = g * to_float(w.values[i]);
        weight_sums[chunk][i] += g * normed;
        if constexpr (Centered) {
          bias_sums[chunk][i] += g;
          sums.x += scaled;
        }
        sums.y += scaled * normed;
      }
    });
    sums = sum_of_row(sums, stage);
    const float mean_scaled = sums.x * per_channel, mean_dot = sums.y * per_channel;
    for_chunks(columns, [&](int chunk, int column) {
      const V in = ring.at(stage, Ring::kX, chunk), grad = ring.at(stage, Ring::kDy, chunk);
      const V w = weight_at(chunk, column);
      V out{};
      if (adds) out = ring.at(stage, Ring::kDx, chunk);
#pragma unroll
      for (int i = 0; i < V::kElems; ++i) {
        const float normed = (to_float(in.values[i]) - mean) * rstd;
        const float scaled = to_float(grad.values[i]) * to_float(w.values[i]);
        out.values[i] = from_float<T>(to_float(out.values[i]) + (scaled - mean_scaled - normed * mean_dot) * rstd);
        if constexpr (DxSums) dx_sums[chunk][i] += to_float(out.values[i]);
      }
      out.store(dx + row * channels + column);
    });
    mean = next_mean;
    rstd = next_rstd;
  }
  __pipeline_wait_prior(0);

  // Groups of the block, in order; one sum after the other through the same cells.
  constexpr int kSums = norm_sums(Centered, DxSums);
  float* const group_sums = reinterpret_cast<float*>(shared);  // [kGroups][channels]
  float* const block_partials = partials + blockIdx.x * kSums * static_cast<std::int64_t>(channels);
#pragma unroll
  for (int which = 0; which < kSums; ++which) {
    __syncthreads();
    for_chunks(channels, [&](int chunk, int column) {
#pragma unroll
      for (int i = 0; i < V::kElems; ++i)
        group_sums[group * channels + column + i] = which == 0               ? weight_sums[chunk][i]
                                                    : Centered && which == 1 ? bias_sums[Centered ? chunk : 0][i]
                                                                             : dx_sums[DxSums ? chunk : 0][i];
    });
    __syncthreads();
    for (int column = threadIdx.x; column < channels; column += kNormBackwardThreads) {
      float total = 0;
#pragma unroll
      for (int g = 0; g < kGroups; ++g) total += group_sums[g * channels + column];
      block_partials[which * channels + column] = total;
    }
  }
}

// Where the sums go, in the order of the partials.
template <typename Out>
struct NormSums {
  Out* of[3];
  int count;
};

// A column, of one sum after the other, goes to kNormParts threads, each of which adds some of the blocks in order;
// then the parts, in order.
constexpr int kNormParts = 8;
static_assert(kNormBackwardBlocks % kNormParts == 0);

template <typename Out>
__global__ void __launch_bounds__(kWarp* kNormParts)
    norm_combine_kernel(NormSums<Out> out_sums, const float* partials, bool accumulate, int channels) {
  __shared__ float sums[kNormParts][kWarp];
  const int columns = out_sums.count * channels, column = blockIdx.x * kWarp + threadIdx.x;
  float total = 0;
  if (column < columns) {
    constexpr int kBlocks = kNormBackwardBlocks / kNormParts;
    const float* from = partials + threadIdx.y * kBlocks * static_cast<std::int64_t>(columns) + column;
#pragma unroll
    for (int block = 0; block < kBlocks; ++block) total += from[block * static_cast<std::int64_t>(columns)];
  }
  sums[threadIdx.y][threadIdx.x] = total;
  __syncthreads();
  if (threadIdx.y > 0 || column >= columns) return;
#pragma unroll
  for (int part = 1; part < kNormParts; ++part) total += sums[part][threadIdx.x];
  const int which = column / channels;
  Out* const out = (which == 0 ? out_sums.of[0] : which == 1 ? out_sums.of[1] : out_sums.of[2]) + column % channels;
  if (accumulate) total += to_float(*out);
  *out = from_float<Out>(total);
}

// Warps and chunks that hold a row of so many channels, and its sums, in registers; false: none do.
template <typename T, int Sums, typename Run>
bool with_norm_share(std::int64_t channels, Run run) {
  const auto fits = [&](int warps, int chunks) { return channels <= warps * chunks * kWarp * Vector<T>::kElems; };
  if constexpr (Sums * Vector<T>::kElems <= 16) {
    if (fits(1, 1)) return run.template operator()<1, 1>(), true;
    if (fits(1, 2)) return run.template operator()<1, 2>(), true;
    if (fits(1, 3)) return run.template operator()<1, 3>(), true;
    if (fits(1, 4)) return run.template operator()<1, 4>(), true;
    if (fits(2, 3)) return run.template operator()<2, 3>(), true;
    if (fits(2, 4)) return run.template operator()<2, 4>(), true;
    if (fits(4, 3)) return run.template operator()<4, 3>(), true;
    if (fits(4, 4)) return run.template operator()<4, 4>(), true;
    if (fits(8, 3)) return run.template operator()<8, 3>(), true;
    if (fits(8, 4)) return run.template operator()<8, 4>(), true;
  } else {  // of two blocks a multiprocessor, four chunks have too many sums
    if (fits(1, 1)) return run.template operator()<1, 1>(), true;
    if (fits(1, 2)) return run.template operator()<1, 2>(), true;
    if (fits(1, 3)) return run.template operator()<1, 3>(), true;
    if (fits(2, 2)) return run.template operator()<2, 2>(), true;
    if (fits(2, 3)) return run.template operator()<2, 3>(), true;
    if (fits(4, 2)) return run.template operator()<4, 2>(), true;
    if (fits(4, 3)) return run.template operator()<4, 3>(), true;
    if (fits(8, 2)) return run.template operator()<8, 2>(), true;
    if (fits(8, 3)) return run.template operator()<8, 3>(), true;
  }
  if (fits(8, 8)) return run.template operator()<8, 8>(), true;
  return false;
}

// False: the row is too wide.
template <typename T, bool Centered, bool DxSums>
bool launch_norm_backward(cudaStream_t stream, const NormBackwardOperands<T>& operands) {
  return with_norm_share<T, norm_sums(Centered, DxSums)>(operands.channels, [&]<int Warps, int Chunks>() {
    const auto kernel = norm_backward_kernel<T, Centered, DxSums, Warps, Chunks>;
    constexpr std::size_t kBytes = sizeof(RowRing<T, Chunks>);
    STRAKE_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(kBytes)));
    kernel<<<kNormBackwardBlocks, kNormBackwardThreads, kBytes, stream>>>(operands);
  });
}
template <typename T, bool Centered>
bool launch_norm_backward(cudaStream_t stream, const NormBackwardOperands<T>& operands, bool dx_sums) {
  return dx_sums ? launch_norm_backward<T, Centered, true>(stream, operands)
                 : launch_norm_backward<T, Centered, false>(stream, operands);
}

template <typename Out>
void launch_norm_combine(cudaStream_t stream, const NormSums<Out>& sums, const float* partials, bool accumulate,
                         std::int64_t channels) {
  norm_combine_kernel<<<blocks_for(sums.count * channels, kWarp), dim3(kWarp, kNormParts), 0, stream>>>(
      sums, partials, accumulate, static_cast<int>(channels));
}

}  // namespace strake::kernels::cuda
