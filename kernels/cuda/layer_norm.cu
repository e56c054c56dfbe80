// Layer norm, one warp a row. Rows lie in registers, so each element is read once. A row that is too wide for that
// takes a block, which reads it again for every pass, the later ones mostly from L2.
#include <algorithm>

#include "kernels/cuda/body.h"
#include "kernels/cuda/column_sums.h"
#include "kernels/cuda/norm_backward.cuh"
#include "kernels/cuda/norm_rows.cuh"
#include "kernels/layer_norm.h"

namespace strake::kernels {
namespace {

using namespace cuda;

constexpr int kMostChunks = 16;    // of a row in the registers of a warp
constexpr int kWideThreads = 512;  // of a row that is wider

template <typename T, int Chunks>
using OneWarp = RowShare<T, 1, Chunks>;

template <typename T, int Chunks, bool Residual>
__global__ void __launch_bounds__(OneWarp<T, Chunks>::kThreads)
    forward_kernel(T* y, float* mean_out, float* rstd_out, T* x_out, const T* x, const T* delta, const T* weight,
                   const T* bias, std::int64_t rows, int channels, float epsilon) {
  using S = OneWarp<T, Chunks>;
  using V = Vector<T>;
  const std::int64_t row = S::first_row();
  if (row >= rows) return;
  const std::int64_t base = row * channels;

  float values[Chunks][V::kElems] = {};  // zero where the row has ended: left undefined they take more registers
  float sum = 0;
  S::for_chunks(channels, [&](int chunk, int column) {
    const V in = load_sum<Residual>(x, delta, x_out, base + column);
#pragma unroll
    for (int i = 0; i < V::kElems; ++i) {
      values[chunk][i] = to_float(in.values[i]);
      sum += values[chunk][i];
    }
  });
  const float mean = warp_sum(sum) / static_cast<float>(channels);
  float squares = 0;
  S::for_chunks(channels, [&](int chunk, int) {
#pragma unroll
    for (int i = 0; i < V::kElems; ++i) squares += (values[chunk][i] - mean) * (values[chunk][i] - mean);
  });
  const float rstd = rsqrtf(warp_sum(squares) / static_cast<float>(channels) + epsilon);
  if (S::leads()) {
    mean_out[row] = mean;
    rstd_out[row] = rstd;
  }
  S::for_chunks(channels, [&](int chunk, int column) {
    const V w = V::load(weight + column), b = V::load(bias + column);
    V out;
#pragma unroll
    for (int i = 0; i < V::kElems; ++i)
      out.values[i] = from_float<T>((values[chunk][i] - mean) * rstd * to_float(w.values[i]) + to_float(b.values[i]));
    out.store(y + base + column);
  });
}

template <typename T, bool Residual>
__global__ void __launch_bounds__(kWideThreads)
    wide_forward_kernel(T* y, float* mean_out, float* rstd_out, T* x_out, const T* x, const T* delta, const T* weight,
                        const T* bias, int channels, float epsilon) {
  using V = Vector<T>;
  __shared__ float cells[kWarp];
  const std::int64_t row = blockIdx.x, base = row * channels;
  const int first = static_cast<int>(threadIdx.x) * V::kElems;
  constexpr int kStride = kWideThreads * V::kElems;

  const T* const values = Residual ? x_out : x;  // a thread reads what it has written itself
  float sum = 0;
  for (int column = first; column < channels; column += kStride) {
    const V in = load_sum<Residual>(x, delta, x_out, base + column);
#pragma unroll
    for (int i = 0; i < V::kElems; ++i) sum += to_float(in.values[i]);
  }
  const float mean = block_sum(sum, cells) / static_cast<float>(channels);
  float squares = 0;
  for (int column = first; column < channels; column += kStride) {
    const V in = V::load(values + base + column);
#pragma unroll
    for (int i = 0; i < V::kElems; ++i) squares += (to_float(in.values[i]) - mean) * (to_float(in.values[i]) - mean);
  }
  const float rstd = rsqrtf(block_sum(squares, cells) / static_cast<float>(channels) + epsilon);
  if (threadIdx.x == 0) {
    mean_out[row] = mean;
    rstd_out[row] = rstd;
  }
  for (int column = first; column < channels; column += kStride) {
    const V in = V::load(values + base + column), w = V::load(weight + column), b = V::load(bias + column);
    V out;
#pragma unroll
    for (int i = 0; i < V::kElems; ++i) {
      out.values[i] =
          from_float<T>((to_float(in.values[i]) - mean) * rstd * to_float(w.values[i]) + to_float(b.values[i]));
    }
    out.store(y + base + column);
  }
}

template <typename T>
__global__ void __launch_bounds__(kWideThreads)
    wide_backward_kernel(T* dx, const T* dy, const T* x, const float* mean_in, const float* rstd_in, const T* weight,
                         int channels, bool adds) {
  using V = Vector<T>;
  __shared__ float cells[kWarp];
  const std::int64_t row = blockIdx.x, base = row * channels;
  const int first = static_cast<int>(threadIdx.x) * V::kElems;
  constexpr int kStride = kWideThreads * V::kElems;
  const float mean = mean_in[row], rstd = rstd_in[row];

  float sum = 0, dot = 0;
  for (int column = first; column < channels; column += kStride) {
    const V in = V::load(x + base + column), grad = V::load(dy + base + column), w = V::load(weight + column);
#pragma unroll
    for (int i = 0; i < V::kElems; ++i) {
      const float scaled = to_float(grad.values[i]) * to_float(w.values[i]);
      sum += scaled;
      dot += scaled * ((to_float(in.values[i]) - mean) * rstd);
    }
  }
  const float mean_scaled = block_sum(sum, cells) / static_cast<float>(channels);
  const float mean_dot = block_sum(dot, cells) / static_cast<float>(channels);
  for (int column = first; column < channels; column += kStride) {
    const V in = V::load(x + base + column), grad = V::load(dy + base + column), w = V::load(weight + column);
    V out{};
    if (adds) out = V::load(dx + base + column);
#pragma unroll
    for (int i = 0; i < V::kElems; ++i) {
      const float normed = (to_float(in.values[i]) - mean) * rstd;
      const float scaled = to_float(grad.values[i]) * to_float(w.values[i]);
      out.values[i] = from_float<T>(to_float(out.values[i]) + (scaled - mean_scaled - normed * mean_dot) * rstd);
    }
    out.store(dx + base + column);
  }
}

// Partial sums as norm_backward_kernel leaves them: of every kNormBackwardBlocks-th row, a thread a vector of columns.
template <typename T>
__global__ void __launch_bounds__(kWarp)
    wide_partials_kernel(float* partials, const T* dy, const T* x, const float* mean, const float* rstd,
                         std::int64_t rows, int channels) {
  using V = Vector<T>;
  const int column = static_cast<int>(blockIdx.x * kWarp + threadIdx.x) * V::kElems;
  if (column >= channels) return;
  float weight_sums[V::kElems] = {}, bias_sums[V::kElems] = {};
  for (std::int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    const V in = V::load(x + row * channels + column), grad = V::load(dy + row * channels + column);
#pragma unroll
    for (int i = 0; i < V::kElems; ++i) {
      const float g = to_float(grad.values[i]);
      weight_sums[i] += g * ((to_float(in.values[i]) - mean[row]) * rstd[row]);
      bias_sums[i] += g;
    }
  }
  float* const block_partials = partials + blockIdx.y * 2 * static_cast<std::int64_t>(channels);
#pragma unroll
  for (int i = 0; i < V::kElems; ++i) {
    block_partials[column + i] = weight_sums[i];
    block_partials[channels + column + i] = bias_sums[i];
  }
}

// All but dx_sums, of a row that no group of warps holds.
template <typename T>
void backward_of_wide(cudaStream_t stream, const NormBackwardOperands<T>& of) {
  wide_backward_kernel<<<blocks_for(of.rows, 1), kWideThreads, 0, stream>>>(of.dx, of.dy, of.x, of.mean, of.rstd,
                                                                            of.weight, of.channels, of.adds);
  const dim3 grid(blocks_for(of.channels, kWarp * Vector<T>::kElems), kNormBackwardBlocks);
  wide_partials_kernel<<<grid, kWarp, 0, stream>>>(of.partials, of.dy, of.x, of.mean, of.rstd, of.rows, of.channels);
}

template <typename T>
bool is_wide(std::int64_t channels) {
  return channels > kMostChunks * kWarp * Vector<T>::kElems;
}

// Calls `run` with the least number of chunks that holds a row. REQUIRES: it is not wide.
template <typename T, typename Run>
void with_chunks(std::int64_t channels, Run run) {
  const std::int64_t chunks = (channels + kWarp * Vector<T>::kElems - 1) / (kWarp * Vector<T>::kElems);
  if (chunks <= 1) return run.template operator()<1>();
  if (chunks <= 2) return run.template operator()<2>();
  if (chunks <= 3) return run.template operator()<3>();
  if (chunks <= 4) return run.template operator()<4>();
  if (chunks <= 8) return run.template operator()<8>();
  return run.template operator()<kMostChunks>();
}

// x_out and delta undefined: no residual add.
Body forward(const Tensor& y, const Tensor& mean, const Tensor& rstd, const Tensor& x_out, const Tensor& x,
             const Tensor& delta, const Tensor& weight, const Tensor& bias, double epsilon) {
  check_rows("layer_norm", x, x.size(1));
  return body(x.dtype(), [=]<typename T>(cudaStream_t stream, void*) {
    const std::int64_t rows = x.size(0), channels = x.size(1);
    if (is_wide<T>(channels)) {
      const auto kernel = delta.defined() ? wide_forward_kernel<T, true> : wide_forward_kernel<T, false>;
      kernel<<<blocks_for(rows, 1), kWideThreads, 0, stream>>>(
          at<T>(y), at<float>(mean), at<float>(rstd), at<T>(x_out), at<const T>(x), at<const T>(delta),
          at<const T>(weight), at<const T>(bias), static_cast<int>(channels), static_cast<float>(epsilon));
      return;
    }
    with_chunks<T>(channels, [&]<int Chunks>() {
      using S = OneWarp<T, Chunks>;
      const auto kernel = delta.defined() ? forward_kernel<T, Chunks, true> : forward_kernel<T, Chunks, false>;
      kernel<<<blocks_for(rows, S::kRows), S::kThreads, 0, stream>>>(
          at<T>(y), at<float>(mean), at<float>(rstd), at<T>(x_out), at<const T>(x), at<const T>(delta),
          at<const T>(weight), at<const T>(bias), rows, static_cast<int>(channels), static_cast<float>(epsilon));
    });
  });
}

}  // namespace

Body LayerNormForward::on_cuda(Device&, Operation&) const {
  return forward(y, mean, rstd, Tensor(), x, Tensor(), weight, bias, epsilon);
}

Body ResidualLayerNormForward::on_cuda(Device&, Operation&) const {
  return forward(y, mean, rstd, x_out, x, delta, weight, bias, epsilon);
}

Body LayerNormBackward::on_cuda(Device&, Operation& operation) const {
  check_rows("layer_norm", x, x.size(1));
  const bool sums = dx_sums.defined();
  operation.workspace_bytes =
      std::max(norm_partials_bytes(norm_sums(true, sums), x.size(1)), column_sums_workspace_bytes(x.size(1)));
  return body(x.dtype(), [=, *this]<typename T>(cudaStream_t stream, void* workspace) {
    const bool add = accumulate == Accumulate::kAdd;
    const NormBackwardOperands<T> operands{.dx = at<T>(dx),
                                           .partials = static_cast<float*>(workspace),
                                           .dy = at<const T>(dy),
                                           .x = at<const T>(x),
                                           .mean = at<const float>(mean),
                                           .rstd = at<const float>(rstd),
                                           .weight = at<const T>(weight),
                                           .rows = x.size(0),
                                           .channels = static_cast<int>(x.size(1)),
                                           .adds = accumulate_dx == Accumulate::kAdd};
    const bool wide = !launch_norm_backward<T, true>(stream, operands, sums);
    if (wide) backward_of_wide(stream, operands);
    with_type(dweight.dtype(), [&]<typename Out>() {
      const NormSums<Out> out{{at<Out>(dweight), at<Out>(dbias), at<Out>(dx_sums)}, norm_sums(true, sums && !wide)};
      launch_norm_combine(stream, out, operands.partials, add, x.size(1));
    });
    if (wide && sums) {
      column_sums(stream, {at(dx_sums), dx_sums.dtype(), add}, dx.dtype(), at(dx), x.size(0), x.size(1), workspace);
    }
  });
}

}  // namespace strake::kernels
