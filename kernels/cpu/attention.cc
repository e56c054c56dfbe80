#include "kernels/cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace strake::kernels::reference {
namespace {

template <typename T>
T dot(const T* a, const T* b, std::int64_t elems) {
  T sum = 0;
  for (std::int64_t i = 0; i < elems; ++i) sum += a[i] * b[i];
  return sum;
}

// y += factor * x
template <typename T>
void add_scaled(T* y, T factor, const T* x, std::int64_t elems) {
  for (std::int64_t i = 0; i < elems; ++i) y[i] += factor * x[i];
}

}  // namespace

template <typename T>
void attention_forward(T* out, T* stats, const T* qkv, const AttentionShape& shape) {
  const auto [batch, length, heads, size] = shape;
  const std::int64_t channels = shape.channels();
  const T scale = T(1) / std::sqrt(T(size));
  for (std::int64_t b = 0; b < batch; ++b) {
    for (std::int64_t h = 0; h < heads; ++h) {
      const T* const q = qkv + b * length * 3 * channels + h * size;  // row t is q + t * 3 * channels
      const T* const k = q + channels;
      const T* const v = k + channels;
      for (std::int64_t i = 0; i < length; ++i) {
        const T* const q_row = q + i * 3 * channels;
        T highest = -std::numeric_limits<T>::infinity();
        for (std::int64_t j = 0; j <= i; ++j)
          highest = std::max(highest, scale * dot(q_row, k + j * 3 * channels, size));
        T* const out_row = out + (b * length + i) * channels + h * size;
        std::fill_n(out_row, size, T(0));
        T sum = 0;
        for (std::int64_t j = 0; j <= i; ++j) {
          const T p = std::exp(scale * dot(q_row, k + j * 3 * channels, size) - highest);
          sum += p;
          add_scaled(out_row, p, v + j * 3 * channels, size);
        }
        for (std::int64_t d = 0; d < size; ++d) out_row[d] /= sum;
        stats[(b * heads + h) * length + i] = highest + std::log(sum);
      }
    }
  }
}

template <typename T>
void attention_backward(T* dqkv, const T* dout, const T* qkv, const T* out, const T* stats, T* /*scratch*/,
                        const AttentionShape& shape) {
  const auto [batch, length, heads, size] = shape;
  const std::int64_t channels = shape.channels();
  const T scale = T(1) / std::sqrt(T(size));
  std::fill_n(dqkv, batch * length * 3 * channels, T(0));
  for (std::int64_t b = 0; b < batch; ++b) {
    for (std::int64_t h = 0; h < heads; ++h) {
      const std::int64_t first = b * length * 3 * channels + h * size;
      const T* const q = qkv + first;
      const T* const k = q + channels;
      const T* const v = k + channels;
      T* const dq = dqkv + first;
      T* const dk = dq + channels;
      T* const dv = dk + channels;
      for (std::int64_t i = 0; i < length; ++i) {
        const T* const dout_row = dout + (b * length + i) * channels + h * size;
        const T row_sum = dot(dout_row, out + (b * length + i) * channels + h * size, size);
        for (std::int64_t j = 0; j <= i; ++j) {
          const std::int64_t row_i = i * 3 * channels;
          const std::int64_t row_j = j * 3 * channels;
          const T p = std::exp(scale * dot(q + row_i, k + row_j, size) - stats[(b * heads + h) * length + i]);
          const T ds = scale * p * (dot(dout_row, v + row_j, size) - row_sum);
          add_scaled(dq + row_i, ds, k + row_j, size);
          add_scaled(dk + row_j, ds, q + row_i, size);
          add_scaled(dv + row_j, p, dout_row, size);
        }
      }
    }
  }
}

#define STRAKE_INSTANTIATE(T)                                               \
  template void attention_forward(T*, T*, const T*, const AttentionShape&); \
  template void attention_backward(T*, const T*, const T*, const T*, const T*, T*, const AttentionShape&);
STRAKE_INSTANTIATE(float)
STRAKE_INSTANTIATE(double)
#undef STRAKE_INSTANTIATE

}  // namespace strake::kernels::reference
