// Softmax cross-entropy: logits are read once and the gradient is written in their place. A short row lies in the
// registers of a block, a wide one in the shared memory of one or several (pipelined_rows.cuh).
#include <algorithm>

#include "kernels/cross_entropy.h"
#include "kernels/cuda/body.h"
#include "kernels/cuda/device_code.cuh"
#include "kernels/cuda/pipelined_rows.cuh"

namespace strake::kernels {
namespace {

using namespace cuda;

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

// For rows that fit nowhere: three passes, the later ones mostly from L2.
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

__global__ void __launch_bounds__(1024)
    loss_kernel(float* total, const float* losses, std::int64_t rows, double scale, bool accumulate) {
  __shared__ double cells[kWarp];
  double sum = 0;
  for (std::int64_t row = threadIdx.x; row < rows; row += blockDim.x) sum += losses[row];
  sum = block_sum(sum, cells);
  if (threadIdx.x == 0) *total = static_cast<float>((accumulate ? static_cast<double>(*total) : 0.0) + scale * sum);
}

// Launches pipelined_row_kernel. False: a row does not fit into the shared memory of `Cluster` blocks twice, or the
// device, or what was compiled for it, cannot.
template <typename T, int Cluster>
bool launch_pipelined(cudaStream_t stream, T* logits, float* losses, const std::int32_t* targets, std::int64_t rows,
                      std::int64_t vocab, std::int64_t padded_vocab, double scale, bool gradient) {
  constexpr std::int64_t kAlignedElems = 128 / sizeof(T);
  const std::int64_t share_elems =
      (padded_vocab + Cluster * kAlignedElems - 1) / (Cluster * kAlignedElems) * kAlignedElems;
  // Of one kernel on one device the answer is always the same.
  struct Answer {
    int device = -1;
    std::int64_t share_elems = 0;
    int bytes = 0, clusters = 0;
  };
  thread_local Answer known;
  const auto kernel = pipelined_row_kernel<T, Cluster>;
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {.x = Cluster, .y = 1, .z = 1};
  cudaLaunchConfig_t config{};
  config.gridDim = Cluster;
  config.blockDim = kPipelineThreads;
  config.stream = stream;
  config.attrs = &cluster;
  config.numAttrs = 1;
  int device = 0;
  STRAKE_CUDA(cudaGetDevice(&device));
  if (known.device != device || known.share_elems != share_elems) {
    int most_bytes = 0;
    cudaFuncAttributes compiled;
    STRAKE_CUDA(cudaDeviceGetAttribute(&most_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
    STRAKE_CUDA(cudaFuncGetAttributes(&compiled, kernel));
    const std::int64_t bytes = kPipelineStateBytes + kPipelineStages * share_elems * static_cast<int>(sizeof(T));
    known = {.device = device, .share_elems = share_elems};
    if (bytes <= most_bytes && compiled.ptxVersion >= 90) {
      known.bytes = static_cast<int>(bytes);
      STRAKE_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most_bytes));
      config.dynamicSmemBytes = known.bytes;
      STRAKE_CUDA(cudaOccupancyMaxActiveClusters(&known.clusters, kernel, &config));
    }
  }
  if (known.clusters == 0) return false;
  config.dynamicSmemBytes = known.bytes;
  config.gridDim = static_cast<unsigned>(std::min<std::int64_t>(known.clusters, rows)) * Cluster;
  STRAKE_CUDA(cudaLaunchKernelEx(&config, kernel, logits, losses, targets, rows, static_cast<int>(vocab),
                                 static_cast<int>(padded_vocab), static_cast<int>(share_elems),
                                 static_cast<float>(scale), gradient));
  return true;
}

// gradient: logits become theirs.
Body row_body(const Tensor& logits, const Tensor& losses, const Tensor& targets, std::int64_t vocab,
              double gradient_scale, bool gradient) {
  STRAKE_CHECK(logits.size(1) % static_cast<std::int64_t>(16 / size_bytes(logits.dtype())) == 0,
               "cross_entropy: CUDA kernels take a padded vocabulary of whole 16-byte vectors");
  return body(logits.dtype(), [=]<typename T>(cudaStream_t stream, void*) {
    const std::int64_t padded_vocab = logits.size(1);
    const auto run = [&](auto kernel, int threads) {
      kernel<<<blocks_for(logits.size(0), 1), threads, 0, stream>>>(
          at<T>(logits), at<float>(losses), at<const std::int32_t>(targets), static_cast<int>(vocab),
          static_cast<int>(padded_vocab), static_cast<float>(gradient_scale), gradient);
    };
    const std::int64_t vectors = (padded_vocab + Vector<T>::kElems - 1) / Vector<T>::kElems;
    if (vectors <= 128) return run(row_kernel<T, 128, 1>, 128);
    if (vectors <= 256 * 4) return run(row_kernel<T, 256, 4>, 256);
    if (vectors <= 1024 * 4) return run(row_kernel<T, 1024, 4>, 1024);
    const auto pipelined = [&]<int Cluster>() {
      return launch_pipelined<T, Cluster>(stream, at<T>(logits), at<float>(losses), at<const std::int32_t>(targets),
                                          logits.size(0), vocab, padded_vocab, gradient_scale, gradient);
    };
    if (pipelined.template operator()<1>() || pipelined.template operator()<2>() ||
        pipelined.template operator()<4>() || pipelined.template operator()<8>())
      return;
    run(long_row_kernel<T>, 1024);
  });
}

}  // namespace

Body CrossEntropyForwardBackward::on_cuda(Device&, Operation&) const {
  return row_body(logits, losses, targets, vocab, gradient_scale, true);
}

Body CrossEntropyForward::on_cuda(Device&, Operation&) const {
  return row_body(logits, losses, targets, vocab, 0, false);
}

Body AccumulateLoss::on_cuda(Device&, Operation&) const {
  return untyped_body([*this](cudaStream_t stream, void*) {
    loss_kernel<<<1, 1024, 0, stream>>>(at<float>(total), at<const float>(losses), losses.elems(), scale, accumulate);
  });
}

}  // namespace strake::kernels
