#include "kernels/cpu/cross_entropy.h"

#include <algorithm>
#include <cmath>

namespace strake::kernels::reference {

template <typename T>
void cross_entropy_forward_backward(T* logits, T* losses, const std::int32_t* targets, std::int64_t rows,
                                    std::int64_t vocab, std::int64_t columns, T gradient_scale) {
  cross_entropy_forward(losses, logits, targets, rows, vocab, columns);
  for (std::int64_t r = 0; r < rows; ++r) {
    T* const row = logits + r * columns;
    const T log_sum = losses[r] + row[targets[r]];
    for (std::int64_t v = 0; v < vocab; ++v) row[v] = gradient_scale * std::exp(row[v] - log_sum);
    row[targets[r]] -= gradient_scale;
    std::fill(row + vocab, row + columns, T(0));
  }
}

template <typename T>
void cross_entropy_forward(T* losses, const T* logits, const std::int32_t* targets, std::int64_t rows,
                           std::int64_t vocab, std::int64_t columns) {
  for (std::int64_t r = 0; r < rows; ++r) {
    const T* const row = logits + r * columns;
    const T highest = *std::max_element(row, row + vocab);
    T sum = 0;
    for (std::int64_t v = 0; v < vocab; ++v) sum += std::exp(row[v] - highest);
    losses[r] = std::log(sum) + highest - row[targets[r]];
  }
}

template <typename T>
void accumulate_loss(T* total, const T* losses, std::int64_t rows, double scale, bool accumulate) {
  double sum = 0;
  for (std::int64_t r = 0; r < rows; ++r) sum += static_cast<double>(losses[r]);
  total[0] = static_cast<T>((accumulate ? static_cast<double>(total[0]) : 0.0) + scale * sum);
}

#define STRAKE_INSTANTIATE(T)                                                                                         \
  template void cross_entropy_forward_backward(T*, T*, const std::int32_t*, std::int64_t, std::int64_t, std::int64_t, \
                                               T);                                                                    \
  template void cross_entropy_forward(T*, const T*, const std::int32_t*, std::int64_t, std::int64_t, std::int64_t);   \
  template void accumulate_loss(T*, const T*, std::int64_t, double, bool);
STRAKE_INSTANTIATE(float)
STRAKE_INSTANTIATE(double)
#undef STRAKE_INSTANTIATE

}  // namespace strake::kernels::reference
