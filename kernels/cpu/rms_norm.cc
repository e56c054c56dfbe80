#include "kernels/rms_norm.h"

#include <algorithm>
#include <cmath>

#include "kernels/cpu/body.h"
#include "kernels/cpu/column_sums.h"

namespace strake::kernels {
namespace reference {

template <typename T>
void rms_norm_forward(T* y, T* rstd, const T* x, const T* weight, std::int64_t rows, std::int64_t channels, T epsilon) {
  for (std::int64_t r = 0; r < rows; ++r) {
    const T* const x_row = x + r * channels;
    T squares = 0;
    for (std::int64_t c = 0; c < channels; ++c) squares += x_row[c] * x_row[c];
    rstd[r] = T(1) / std::sqrt(squares / T(channels) + epsilon);
    for (std::int64_t c = 0; c < channels; ++c) y[r * channels + c] = x_row[c] * rstd[r] * weight[c];
  }
}

template <typename T>
void residual_rms_norm_forward(T* x_out, T* y, T* rstd, const T* x, const T* delta, const T* weight, std::int64_t rows,
                               std::int64_t channels, T epsilon) {
  for (std::int64_t i = 0; i < rows * channels; ++i) x_out[i] = x[i] + delta[i];
  rms_norm_forward(y, rstd, x_out, weight, rows, channels, epsilon);
}

template <typename T>
void rms_norm_backward(T* dx, T* dweight, const T* dy, const T* x, const T* rstd, const T* weight, std::int64_t rows,
                       std::int64_t channels, bool accumulate) {
  if (!accumulate) std::fill_n(dweight, channels, T(0));
  // With n = x * rstd and g = dy * weight: dx = rstd * (g - n * average(g * n)).
  for (std::int64_t r = 0; r < rows; ++r) {
    const T* const x_row = x + r * channels;
    const T* const dy_row = dy + r * channels;
    T sum_gn = 0;
    for (std::int64_t c = 0; c < channels; ++c) {
      const T n = x_row[c] * rstd[r];
      sum_gn += dy_row[c] * weight[c] * n;
      dweight[c] += dy_row[c] * n;
    }
    for (std::int64_t c = 0; c < channels; ++c) {
      const T n = x_row[c] * rstd[r];
      dx[r * channels + c] += rstd[r] * (dy_row[c] * weight[c] - n * (sum_gn / T(channels)));
    }
  }
}

}  // namespace reference

namespace cpu {

STRAKE_VECTOR_CODE(rms_norm_forward);
STRAKE_VECTOR_CODE(residual_rms_norm_forward);
STRAKE_VECTOR_CODE(rms_norm_backward);

}  // namespace cpu

Body RmsNormForward::on_cpu(CpuCode code) const {
  return cpu::body(x.dtype(), [=, *this]<typename T>() {
    cpu::rms_norm_forward.in<T>(code)(data<T>(y), data<T>(rstd), data<T>(x), data<T>(weight), x.size(0), x.size(1),
                                      static_cast<T>(epsilon));
  });
}

Body ResidualRmsNormForward::on_cpu(CpuCode code) const {
  return cpu::body(x.dtype(), [=, *this]<typename T>() {
    cpu::residual_rms_norm_forward.in<T>(code)(data<T>(x_out), data<T>(y), data<T>(rstd), data<T>(x), data<T>(delta),
                                               data<T>(weight), x.size(0), x.size(1), static_cast<T>(epsilon));
  });
}

Body RmsNormBackward::on_cpu(CpuCode code) const {
  return cpu::body(x.dtype(), [=, *this]<typename T>() {
    const bool add = accumulate == Accumulate::kAdd;
    if (accumulate_dx == Accumulate::kOverwrite) std::fill_n(data<T>(dx), dx.elems(), T(0));
    cpu::rms_norm_backward.in<T>(code)(data<T>(dx), data<T>(dweight), data<T>(dy), data<T>(x), data<T>(rstd),
                                       data<T>(weight), x.size(0), x.size(1), add);
    if (dx_sums.defined()) cpu::column_sums.in<T>(code)(data<T>(dx_sums), data<T>(dx), x.size(0), x.size(1), add);
  });
}

}  // namespace strake::kernels
