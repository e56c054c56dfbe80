// Softmax cross-entropy: one block a row, the row in registers, so that logits are read once and the gradient written
// in their place.
#include "kernels/cuda/device_code.cuh"
#include "kernels/cuda/launches.h"

namespace strake::kernels::cuda {
namespace {

// Vectors: 16-byte vectors that a thread holds. The row has at most Threads * Vectors * Vector<T>::kElems columns.
template <typename T, int Threads, int Vectors>
__global__ void __launch_bounds__(Threads) row_kernel(T* logits, float* losses, const std::int32_t* targets, int vocab,
                                                      int padded_vocab, float scale, bool gradient) {
  using V = Vector<T>;
  __shared__ float cells[kWarp];
  const std::int64_t row = blockIdx.x;
  T* row_logits = logits + row * padded_vocab;
  const int target = targets[row];

  V held[Vectors];
  float largest = -INFINITY;
#pragma unroll
  for (int v = 0; v < Vectors; ++v) {
    const int column = (v * Threads + static_cast<int>(threadIdx.x)) * V::kElems;
    if (column < padded_vocab) {
      held[v] = V::load_streaming(row_logits + column);
#pragma unroll
      for (int i = 0; i < V::kElems; ++i) {
        if (column + i < vocab) largest = fmaxf(largest, to_float(held[v].values[i]));
      }
    }
  }
  largest = block_max(largest, cells);
  float sum = 0;
#pragma unroll
  for (int v = 0; v < Vectors; ++v) {
    const int column = (v * Threads + static_cast<int>(threadIdx.x)) * V::kElems;
    if (column < padded_vocab) {
#pragma unroll
      for (int i = 0; i < V::kElems; ++i) {
        if (column + i < vocab) sum += __expf(to_float(held[v].values[i]) - largest);
      }
    }
  }
  sum = block_sum(sum, cells);
  if (threadIdx.x == 0) losses[row] = logf(sum) + largest - to_float(row_logits[target]);
  if (!gradient) return;
  __syncthreads();  // the target's logit was read
  const float inverse = 1.0f / sum;
#pragma unroll
  for (int v = 0; v < Vectors; ++v) {
    const int column = (v * Threads + static_cast<int>(threadIdx.x)) * V::kElems;
    if (column < padded_vocab) {
      V out;
#pragma unroll
      for (int i = 0; i < V::kElems; ++i) {
        float p = 0;
        if (column + i < vocab) {
          p = __expf(to_float(held[v].values[i]) - largest) * inverse;
          if (column + i == target) p -= 1.0f;
        }
        out.values[i] = from_float<T>(p * scale);
      }
      out.store_streaming(row_logits + column);
    }
  }
}

// For rows that do not fit into registers: three passes, the later ones mostly from L2.
template <typename T>
__global__ void __launch_bounds__(1024) long_row_kernel(T* logits, float* losses, const std::int32_t* targets,
                                                        int vocab, int padded_vocab, float scale, bool gradient) {
  __shared__ float cells[kWarp];
  const std::int64_t row = blockIdx.x;
  T* row_logits = logits + row * padded_vocab;
  const int target = targets[row];
  float largest = -INFINITY, sum = 0;
  for (int column = threadIdx.x; column < vocab; column += blockDim.x)
    largest = fmaxf(largest, to_float(row_logits[column]));
  largest = block_max(largest, cells);
  for (int column = threadIdx.x; column < vocab; column += blockDim.x)
    sum += __expf(to_float(row_logits[column]) - largest);
  sum = block_sum(sum, cells);
  if (threadIdx.x == 0) losses[row] = logf(sum) + largest - to_float(row_logits[target]);
  if (!gradient) return;
  __syncthreads();
  for (int column = threadIdx.x; column < padded_vocab; column += blockDim.x) {
    float p = 0;
    if (column < vocab) p = __expf(to_float(row_logits[column]) - largest) / sum - (column == target ? 1.0f : 0.0f);
    row_logits[column] = from_float<T>(p * scale);
  }
}

template <typename T>
void launch(cudaStream_t stream, void* logits, float* losses, const std::int32_t* targets, std::int64_t rows,
            std::int64_t vocab, std::int64_t padded_vocab, float scale, bool gradient) {
  const int grid = blocks_for(rows, 1);
  const auto run = [&](auto kernel, int threads) {
    kernel<<<grid, threads, 0, stream>>>(static_cast<T*>(logits), losses, targets, static_cast<int>(vocab),
                                         static_cast<int>(padded_vocab), scale, gradient);
  };
  const std::int64_t vectors = (padded_vocab + Vector<T>::kElems - 1) / Vector<T>::kElems;
  if (vectors <= 128) return run(row_kernel<T, 128, 1>, 128);
  if (vectors <= 256 * 4) return run(row_kernel<T, 256, 4>, 256);
  if (vectors <= 1024 * 4) return run(row_kernel<T, 1024, 4>, 1024);
  if (vectors <= 1024 * 7) return run(row_kernel<T, 1024, 7>, 1024);
  if (vectors <= 1024 * 8) return run(row_kernel<T, 1024, 8>, 1024);
  run(long_row_kernel<T>, 1024);
}

__global__ void __launch_bounds__(1024)
    loss_kernel(float* total, const float* losses, std::int64_t rows, double scale, bool accumulate) {
  __shared__ double cells[kWarp];
  double sum = 0;
  for (std::int64_t row = threadIdx.x; row < rows; row += blockDim.x) sum += losses[row];
  sum = block_sum(sum, cells);
  if (threadIdx.x == 0) *total = static_cast<float>((accumulate ? static_cast<double>(*total) : 0.0) + scale * sum);
}

}  // namespace

void cross_entropy(cudaStream_t stream, Type type, void* logits, float* losses, const std::int32_t* targets,
                   std::int64_t rows, std::int64_t vocab, std::int64_t padded_vocab, float gradient_scale,
                   bool gradient) {
  const auto run = type == Type::kBF16 ? launch<__nv_bfloat16> : launch<float>;
  run(stream, logits, losses, targets, rows, vocab, padded_vocab, gradient_scale, gradient);
}

void accumulate_loss(cudaStream_t stream, float* total, const float* losses, std::int64_t rows, double scale,
                     bool accumulate) {
  loss_kernel<<<1, 1024, 0, stream>>>(total, losses, rows, scale, accumulate);
}

}  // namespace strake::kernels::cuda
