// RMS norm. A row lies in the registers of one warp or, where it is wide, of all warps of a block: each element is read
// once.
//
// Backward: a fixed number of blocks takes rows in a fixed pattern and keeps the sums for the weight in registers; they
// meet in a second kernel, always in the same order.
#include "kernels/cuda/body.h"
#include "kernels/cuda/norm_rows.cuh"
#include "kernels/rms_norm.h"

namespace strake::kernels {
namespace {

using namespace cuda;

constexpr int kBackwardBlocks = 264;  // two a multiprocessor of the largest Hopper parts

template <typename T, int Warps, int Chunks, bool Residual>
__global__ void __launch_bounds__(RowShare<T, Warps, Chunks>::kThreads)
    forward_kernel(T* y, float* rstd_out, T* x_out, const T* x, const T* delta, const T* weight, std::int64_t rows,
                   int channels, float epsilon) {
  using S = RowShare<T, Warps, Chunks>;
  using V = Vector<T>;
  __shared__ float cells[32];
  const std::int64_t row = S::first_row();
  if (row >= rows) return;  // all threads of the row, so also of the block where they share it
  const std::int64_t base = row * channels;

  V values[Chunks];
  float squares = 0;
  S::for_chunks(channels, [&](int chunk, int column) {
    values[chunk] = load_sum<Residual>(x, delta, x_out, base + column);
#pragma unroll
    for (int i = 0; i < V::kElems; ++i) {
      const float value = to_float(values[chunk].values[i]);
      squares += value * value;
    }
  });
  const float rstd = rsqrtf(S::sum(squares, cells) / static_cast<float>(channels) + epsilon);
  if (S::leads()) rstd_out[row] = rstd;
  S::for_chunks(channels, [&](int chunk, int column) {
    const V w = V::load(weight + column);
    V out;
#pragma unroll
    for (int i = 0; i < V::kElems; ++i)
      out.values[i] = from_float<T>(to_float(values[chunk].values[i]) * rstd * to_float(w.values[i]));
    out.store(y + base + column);
  });
}

// partials[b][channels]: the sums for the weight of block b.
template <typename T, int Warps, int Chunks>
__global__ void __launch_bounds__(RowShare<T, Warps, Chunks>::kThreads)
    backward_kernel(T* dx, float* partials, const T* dy, const T* x, const float* rstd_in, const T* weight,
                    std::int64_t rows, int channels) {
  using S = RowShare<T, Warps, Chunks>;
  using V = Vector<T>;
  __shared__ float cells[32];
  extern __shared__ float warp_sums[];  // [kRows][channels], where a block has several rows
  float sums[Chunks][V::kElems] = {};

  for (std::int64_t row = S::first_row(); row < rows; row += gridDim.x * static_cast<std::int64_t>(S::kRows)) {
    const std::int64_t base = row * channels;
    const float rstd = rstd_in[row];
    V in[Chunks], grad[Chunks];
    float dot = 0;
    S::for_chunks(channels, [&](int chunk, int column) {
      in[chunk] = V::load_streaming(x + base + column);
      grad[chunk] = V::load_streaming(dy + base + column);
      const V w = V::load(weight + column);
#pragma unroll
      for (int i = 0; i < V::kElems; ++i) {
        const float product = to_float(grad[chunk].values[i]) * (to_float(in[chunk].values[i]) * rstd);
        sums[chunk][i] += product;
        dot += product * to_float(w.values[i]);
      }
    });
    const float average = S::sum(dot, cells) / static_cast<float>(channels);
    S::for_chunks(channels, [&](int chunk, int column) {
      const V w = V::load(weight + column);
      V out = V::load(dx + base + column);
#pragma unroll
      for (int i = 0; i < V::kElems; ++i) {
        const float normed = to_float(in[chunk].values[i]) * rstd;
        const float scaled = to_float(grad[chunk].values[i]) * to_float(w.values[i]);
        out.values[i] = from_float<T>(to_float(out.values[i]) + (scaled - normed * average) * rstd);
      }
      out.store(dx + base + column);
    });
  }

  float* const block_partials = partials + blockIdx.x * static_cast<std::int64_t>(channels);
  float* const own = S::kRows == 1 ? block_partials : warp_sums + threadIdx.x / kWarp * channels;
  S::for_chunks(channels, [&](int chunk, int column) {
#pragma unroll
    for (int i = 0; i < V::kElems; ++i) own[column + i] = sums[chunk][i];
  });
  if constexpr (S::kRows > 1) {  // the block's warps, in order
    __syncthreads();
    for (int column = threadIdx.x; column < channels; column += S::kThreads) {
      float total = 0;
#pragma unroll
      for (int warp = 0; warp < S::kRows; ++warp) total += warp_sums[warp * channels + column];
      block_partials[column] = total;
    }
  }
}

// A column goes to kParts threads, each of which adds some of the blocks in order; then the parts, in order.
constexpr int kParts = 8;
static_assert(kBackwardBlocks % kParts == 0);

template <typename Out>
__global__ void __launch_bounds__(kWarp* kParts)
    combine_kernel(Out* dweight, const float* partials, bool accumulate, int channels) {
  __shared__ float sums[kParts][kWarp];
  const int column = blockIdx.x * kWarp + threadIdx.x;
  float total = 0;
  if (column < channels) {
    constexpr int kBlocks = kBackwardBlocks / kParts;
    const float* from = partials + threadIdx.y * kBlocks * static_cast<std::int64_t>(channels) + column;
#pragma unroll
    for (int block = 0; block < kBlocks; ++block) total += from[block * static_cast<std::int64_t>(channels)];
  }
  sums[threadIdx.y][threadIdx.x] = total;
  __syncthreads();
  if (threadIdx.y > 0 || column >= channels) return;
#pragma unroll
  for (int part = 1; part < kParts; ++part) total += sums[part][threadIdx.x];
  if (accumulate) total += to_float(dweight[column]);
  dweight[column] = from_float<Out>(total);
}

// Calls `run` with as few warps and chunks as hold a row: beyond eight chunks a warp's registers do not suffice.
template <typename T, typename Run>
void with_share(std::int64_t channels, Run run) {
  const std::int64_t warp_vectors = kWarp * Vector<T>::kElems;
  const auto at_most = [&](int warps, int chunks) { return channels <= warps * chunks * warp_vectors; };
  if (at_most(1, 1)) return run.template operator()<1, 1>();
  if (at_most(1, 2)) return run.template operator()<1, 2>();
  if (at_most(1, 3)) return run.template operator()<1, 3>();
  if (at_most(1, 4)) return run.template operator()<1, 4>();
  if (at_most(1, 8)) return run.template operator()<1, 8>();
  if (at_most(8, 2)) return run.template operator()<8, 2>();
  if (at_most(8, 3)) return run.template operator()<8, 3>();
  if (at_most(8, 4)) return run.template operator()<8, 4>();
  return run.template operator()<8, 8>();
}

Body forward(const Tensor& y, const Tensor& rstd, const Tensor& x_out, const Tensor& x, const Tensor& delta,
             const Tensor& weight, double epsilon) {
  check_rms_norm_rows("rms_norm", x, x.size(1));
  return body(x.dtype(), [=]<typename T>(cudaStream_t stream, void*) {
    const std::int64_t rows = x.size(0), channels = x.size(1);
    with_share<T>(channels, [&]<int Warps, int Chunks>() {
      using S = RowShare<T, Warps, Chunks>;
      const auto kernel =
          delta.defined() ? forward_kernel<T, Warps, Chunks, true> : forward_kernel<T, Warps, Chunks, false>;
      kernel<<<blocks_for(rows, S::kRows), S::kThreads, 0, stream>>>(
          at<T>(y), at<float>(rstd), at<T>(x_out), at<const T>(x), at<const T>(delta), at<const T>(weight), rows,
          static_cast<int>(channels), static_cast<float>(epsilon));
    });
  });
}

}  // namespace

Body RmsNormForward::on_cuda(Device&, Operation&) const {
  return forward(y, rstd, Tensor(), x, Tensor(), weight, epsilon);
}

Body ResidualRmsNormForward::on_cuda(Device&, Operation&) const {
  return forward(y, rstd, x_out, x, delta, weight, epsilon);
}

Body RmsNormBackward::on_cuda(Device&, Operation& operation) const {
  check_rms_norm_rows("rms_norm", x, x.size(1));
  operation.workspace_bytes = kBackwardBlocks * static_cast<std::size_t>(x.size(1)) * sizeof(float);
  return body(x.dtype(), [=, *this]<typename T>(cudaStream_t stream, void* workspace) {
    const std::int64_t rows = x.size(0), channels = x.size(1);
    auto* const partials = static_cast<float*>(workspace);
    with_share<T>(channels, [&]<int Warps, int Chunks>() {
      using S = RowShare<T, Warps, Chunks>;
      const std::size_t shared_bytes =
          S::kRows == 1 ? 0 : S::kRows * static_cast<std::size_t>(channels) * sizeof(float);
      backward_kernel<T, Warps, Chunks><<<kBackwardBlocks, S::kThreads, shared_bytes, stream>>>(
          at<T>(dx), partials, at<const T>(dy), at<const T>(x), at<const float>(rstd), at<const T>(weight), rows,
          static_cast<int>(channels));
    });
    with_type(dweight.dtype(), [&]<typename Out>() {
      combine_kernel<<<blocks_for(channels, kWarp), dim3(kWarp, kParts), 0, stream>>>(
          at<Out>(dweight), partials, accumulate == Accumulate::kAdd, static_cast<int>(channels));
    });
  });
}

}  // namespace strake::kernels
