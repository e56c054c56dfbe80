#include "kernels/cpu/layer_norm.h"

#include <algorithm>
#include <cmath>

#include "kernels/layer_norm.h"

namespace strake::kernels::reference {

template <typename T>
void layer_norm_forward(T* y, T* mean, T* rstd, const T* x, const T* weight, const T* bias, std::int64_t rows,
                        std::int64_t channels) {
  for (std::int64_t r = 0; r < rows; ++r) {
    const T* const x_row = x + r * channels;
    T sum = 0;
    for (std::int64_t c = 0; c < channels; ++c) sum += x_row[c];
    const T row_mean = sum / T(channels);
    T squares = 0;
    for (std::int64_t c = 0; c < channels; ++c) squares += (x_row[c] - row_mean) * (x_row[c] - row_mean);
    const T row_rstd = T(1) / std::sqrt(squares / T(channels) + T(kLayerNormEpsilon));
    for (std::int64_t c = 0; c < channels; ++c) {
      y[r * channels + c] = (x_row[c] - row_mean) * row_rstd * weight[c] + bias[c];
    }
    mean[r] = row_mean;
    rstd[r] = row_rstd;
  }
}

template <typename T>
void residual_layer_norm_forward(T* x_out, T* y, T* mean, T* rstd, const T* x, const T* delta, const T* weight,
                                 const T* bias, std::int64_t rows, std::int64_t channels) {
  for (std::int64_t i = 0; i < rows * channels; ++i) x_out[i] = x[i] + delta[i];
  layer_norm_forward(y, mean, rstd, x_out, weight, bias, rows, channels);
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

#define STRAKE_INSTANTIATE(T)                                                                                     \
  template void layer_norm_forward(T*, T*, T*, const T*, const T*, const T*, std::int64_t, std::int64_t);         \
  template void residual_layer_norm_forward(T*, T*, T*, T*, const T*, const T*, const T*, const T*, std::int64_t, \
                                            std::int64_t);                                                        \
  template void layer_norm_backward(T*, T*, T*, const T*, const T*, const T*, const T*, const T*, std::int64_t,   \
                                    std::int64_t, bool);
STRAKE_INSTANTIATE(float)
STRAKE_INSTANTIATE(double)
#undef STRAKE_INSTANTIATE

}  // namespace strake::kernels::reference
