#include "kernels/cross_entropy.h"

#include <algorithm>
#include <cmath>

#include "kernels/cpu/body.h"

namespace strake::kernels {
namespace reference {

// logits [rows, columns], of which the first `vocab` columns count; losses [rows]; targets [rows].
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

// Summed in order in double.
template <typename T>
void accumulate_loss(T* total, const T* losses, std::int64_t rows, double scale, bool accumulate) {
  double sum = 0;
  for (std::int64_t r = 0; r < rows; ++r) sum += static_cast<double>(losses[r]);
  total[0] = static_cast<T>((accumulate ? static_cast<double>(total[0]) : 0.0) + scale * sum);
}

}  // namespace reference

namespace cpu {

STRAKE_VECTOR_CODE(cross_entropy_forward_backward);
STRAKE_VECTOR_CODE(cross_entropy_forward);

}  // namespace cpu

Body CrossEntropyForwardBackward::on_cpu(CpuCode code) const {
  return cpu::body(logits.dtype(), [=, *this]<typename T>() {
    cpu::cross_entropy_forward_backward.in<T>(code)(data<T>(logits), data<T>(losses), data<std::int32_t>(targets),
                                                    logits.size(0), vocab, logits.size(1),
                                                    static_cast<T>(gradient_scale));
  });
}

Body CrossEntropyForward::on_cpu(CpuCode code) const {
  return cpu::body(logits.dtype(), [=, *this]<typename T>() {
    cpu::cross_entropy_forward.in<T>(code)(data<T>(losses), data<T>(logits), data<std::int32_t>(targets),
                                           logits.size(0), vocab, logits.size(1));
  });
}

Body AccumulateLoss::on_cpu(CpuCode) const {
  return cpu::body(losses.dtype(), [*this]<typename T>() {
    reference::accumulate_loss(data<T>(total), data<T>(losses), losses.elems(), scale, accumulate);
  });
}

}  // namespace strake::kernels
