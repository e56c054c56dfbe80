// RMS norm. A row lies in the registers of one warp or, where it is wide, of all warps of a block: each element is read
// once.
#include "kernels/cuda/body.h"
#include "kernels/cuda/norm_backward.cuh"
#include "kernels/cuda/norm_rows.cuh"
#include "kernels/rms_norm.h"

namespace strake::kernels {
namespace {

using namespace cuda;

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
  const bool sums = dx_sums.defined();
  operation.workspace_bytes = norm_partials_bytes(norm_sums(false, sums), x.size(1));
  return body(x.dtype(), [=, *this]<typename T>(cudaStream_t stream, void* workspace) {
    auto* const partials = static_cast<float*>(workspace);
    const bool fits = launch_norm_backward<T, false>(stream,
                                                     {.dx = at<T>(dx),
                                                      .partials = partials,
                                                      .dy = at<const T>(dy),
                                                      .x = at<const T>(x),
                                                      .mean = nullptr,
                                                      .rstd = at<const float>(rstd),
                                                      .weight = at<const T>(weight),
                                                      .rows = x.size(0),
                                                      .channels = static_cast<int>(x.size(1)),
                                                      .adds = accumulate_dx == Accumulate::kAdd},
                                                     sums);
    STRAKE_CHECK(fits, "rms_norm: a row wider than check_rms_norm_rows admits");
    with_type(dweight.dtype(), [&]<typename Out>() {
      const NormSums<Out> out{{at<Out>(dweight), at<Out>(dx_sums)}, norm_sums(false, sums)};
      launch_norm_combine(stream, out, partials, accumulate == Accumulate::kAdd, x.size(1));
    });
  });
}

}  // namespace strake::kernels
