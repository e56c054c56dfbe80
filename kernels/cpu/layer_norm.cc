#include "kernels/layer_norm.h"

#include <algorithm>
#include <cmath>

#include "kernels/cpu/body.h"
#include "kernels/cpu/column_sums.h"

namespace strake::kernels {
namespace reference {

// y, x [rows, channels]; mean, rstd [rows]; weight, bias [channels].
template <typename T>
void layer_norm_forward(T* y, T* mean, T* rstd, const T* x, const T* weight, const T* bias, std::int64_t rows,
                        std::int64_t channels, double epsilon) {
  for (std::int64_t r = 0; r < rows; ++r) {
    const T* const x_row = x + r * channels;
    T sum = 0;
    for (std::int64_t c = 0; c < channels; ++c) sum += x_row[c];
    const T row_mean = sum / T(channels);
    T squares = 0;
    for (std::int64_t c = 0; c < channels; ++c) squares += (x_row[c] - row_mean) * (x_row[c] - row_mean);
    const T row_rstd = T(1) / std::sqrt(squares / T(channels) + T(epsilon));
    for (std::int64_t c = 0; c < channels; ++c) {
      y[r * channels + c] = (x_row[c] - row_mean) * row_rstd * weight[c] + bias[c];
    }
    mean[r] = row_mean;
    rstd[r] = row_rstd;
  }
}

template <typename T>
void residual_layer_norm_forward(T* x_out, T* y, T* mean, T* rstd, const T* x, const T* delta, const T* weight,
                                 const T* bias, std::int64_t rows, std::int64_t channels, double epsilon) {
  for (std::int64_t i = 0; i < rows * channels; ++i) x_out[i] = x[i] + delta[i];
  layer_norm_forward(y, mean, rstd, x_out, weight, bias, rows, channels, epsilon);
}

template <typename T>
void layer_norm_backward(T* dx, T* dweight, T* dbias, const T* dy, const T* x, const T* mean, const T* rstd,
                         const T* weight, std::int64_t rows, std::int64_t channels, bool accumulate) {
  if (!accumulate) {
    std::fill_n(dweight, channels, T(0));
    std::fill_n(dbias, channels, T(0));
  }
  // With n = (x - mean) * rstd and g = dy * weight: dx = rstd * (g - average(g) - n * average(g * n)).
  for (std::int64_t r = 0; r < rows; ++r) {
    const T* const x_row = x + r * channels;
    const T* const dy_row = dy + r * channels;
    T sum_g = 0;
    T sum_gn = 0;
    for (std::int64_t c = 0; c < channels; ++c) {
      const T n = (x_row[c] - mean[r]) * rstd[r];
      sum_g += dy_row[c] * weight[c];
      sum_gn += dy_row[c] * weight[c] * n;
      dweight[c] += dy_row[c] * n;
      dbias[c] += dy_row[c];
    }
    for (std::int64_t c = 0; c < channels; ++c) {
      const T n = (x_row[c] - mean[r]) * rstd[r];
      dx[r * channels + c] += rstd[r] * (dy_row[c] * weight[c] - sum_g / T(channels) - n * (sum_gn / T(channels)));
    }
  }
}

}  // namespace reference

namespace cpu {

STRAKE_VECTOR_CODE(layer_norm_forward);
STRAKE_VECTOR_CODE(residual_layer_norm_forward);
STRAKE_VECTOR_CODE(layer_norm_backward);

}  // namespace cpu

Body LayerNormForward::on_cpu(CpuCode code) const {
  return cpu::body(x.dtype(), [=, *this]<typename T>() {
    cpu::layer_norm_forward.in<T>(code)(data<T>(y), data<T>(mean), data<T>(rstd), data<T>(x), data<T>(weight),
                                        data<T>(bias), x.size(0), x.size(1), epsilon);
  });
}

Body ResidualLayerNormForward::on_cpu(CpuCode code) const {
  return cpu::body(x.dtype(), [=, *this]<typename T>() {
    cpu::residual_layer_norm_forward.in<T>(code)(data<T>(x_out), data<T>(y), data<T>(mean), data<T>(rstd), data<T>(x),
                                                 data<T>(delta), data<T>(weight), data<T>(bias), x.size(0), x.size(1),
                                                 epsilon);
  });
}

Body LayerNormBackward::on_cpu(CpuCode code) const {
  return cpu::body(x.dtype(), [=, *this]<typename T>() {
    const bool add = accumulate == Accumulate::kAdd;
    if (accumulate_dx == Accumulate::kOverwrite) std::fill_n(data<T>(dx), dx.elems(), T(0));
    cpu::layer_norm_backward.in<T>(code)(data<T>(dx), data<T>(dweight), data<T>(dbias), data<T>(dy), data<T>(x),
                                         data<T>(mean), data<T>(rstd), data<T>(weight), x.size(0), x.size(1), add);
    if (dx_sums.defined()) cpu::column_sums.in<T>(code)(data<T>(dx_sums), data<T>(dx), x.size(0), x.size(1), add);
  });
}

}  // namespace strake::kernels
