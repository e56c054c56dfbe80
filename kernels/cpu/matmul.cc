#include "kernels/cpu/matmul.h"

#include <algorithm>

namespace strake::kernels::reference {
namespace {

// c [m, n] += a b with a(i, k) = a[i * a_row + k * a_column] and b [inner, n]. The innermost loop runs along
// rows of b and c, a tile of b stays in cache for all rows of c, and each c(i, j) adds its terms in order of k.
template <typename T>
void add_product(T* c, const T* a, std::int64_t a_row, std::int64_t a_column, const T* b, std::int64_t m,
                 std::int64_t n, std::int64_t inner) {
  constexpr std::int64_t kTile = 64;
  for (std::int64_t k_begin = 0; k_begin < inner; k_begin += kTile) {
    const std::int64_t k_end = std::min(k_begin + kTile, inner);
    for (std::int64_t i = 0; i < m; ++i) {
      T* const c_row = c + i * n;
      for (std::int64_t k = k_begin; k < k_end; ++k) {
        const T factor = a[i * a_row + k * a_column];
        const T* const b_row = b + k * n;
        for (std::int64_t j = 0; j < n; ++j) c_row[j] += factor * b_row[j];
      }
    }
  }
}

}  // namespace

template <typename T>
void linear_forward(T* y, const T* x, const T* weight, const T* bias, std::int64_t rows, std::int64_t outs,
                    std::int64_t ins) {
  // Dot products of rows, four at a time: weight is read along its rows, as it lies.
  for (std::int64_t o = 0; o < outs; ++o) {
    const T* const w = weight + o * ins;
    const T start = bias != nullptr ? bias[o] : T(0);
    std::int64_t r = 0;
    for (; r + 4 <= rows; r += 4) {
      const T* const x0 = x + r * ins;
      const T *const x1 = x0 + ins, *const x2 = x1 + ins, *const x3 = x2 + ins;
      T sum0 = 0, sum1 = 0, sum2 = 0, sum3 = 0;
      for (std::int64_t i = 0; i < ins; ++i) {
        sum0 += x0[i] * w[i];
        sum1 += x1[i] * w[i];
        sum2 += x2[i] * w[i];
        sum3 += x3[i] * w[i];
      }
      y[r * outs + o] = sum0 + start;
      y[(r + 1) * outs + o] = sum1 + start;
      y[(r + 2) * outs + o] = sum2 + start;
      y[(r + 3) * outs + o] = sum3 + start;
    }
    for (; r < rows; ++r) {
      T sum = 0;
      for (std::int64_t i = 0; i < ins; ++i) sum += x[r * ins + i] * w[i];
      y[r * outs + o] = sum + start;
    }
  }
}

template <typename T>
void linear_backward_weight(T* dweight, const T* dy, const T* x, std::int64_t rows, std::int64_t outs, std::int64_t ins,
                            bool accumulate) {
  if (!accumulate) std::fill_n(dweight, outs * ins, T(0));
  add_product(dweight, dy, 1, outs, x, outs, ins, rows);
}

template <typename T>
void linear_backward_input(T* dx, const T* dy, const T* weight, std::int64_t rows, std::int64_t outs,
                           std::int64_t ins) {
  std::fill_n(dx, rows * ins, T(0));
  add_product(dx, dy, outs, 1, weight, rows, ins, outs);
}

template <typename T>
void column_sums(T* sums, const T* a, std::int64_t rows, std::int64_t columns, bool accumulate) {
  if (!accumulate) std::fill_n(sums, columns, T(0));
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t j = 0; j < columns; ++j) sums[j] += a[r * columns + j];
  }
}

#define STRAKE_INSTANTIATE(T)                                                                                   \
  template void linear_forward(T*, const T*, const T*, const T*, std::int64_t, std::int64_t, std::int64_t);     \
  template void linear_backward_weight(T*, const T*, const T*, std::int64_t, std::int64_t, std::int64_t, bool); \
  template void linear_backward_input(T*, const T*, const T*, std::int64_t, std::int64_t, std::int64_t);        \
  template void column_sums(T*, const T*, std::int64_t, std::int64_t, bool);
STRAKE_INSTANTIATE(float)
STRAKE_INSTANTIATE(double)
#undef STRAKE_INSTANTIATE

}  // namespace strake::kernels::reference
