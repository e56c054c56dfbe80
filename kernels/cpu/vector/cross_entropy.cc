#include "kernels/cpu/vector/lanes.h"

namespace strake::kernels::cpu::STRAKE_VECTOR_NAMESPACE {
namespace {

constexpr float kLowest = -__builtin_inff();

inline float row_maximum(const float* row, std::int64_t vocab) {
  Lanes highest = broadcast(kLowest);
  for_lanes(vocab, [&](std::int64_t i, auto part) { highest = maximum(highest, load(row + i, part, kLowest)); });
  return maximum(highest);
}

}  // namespace

void cross_entropy_forward_backward(float* logits, float* losses, const std::int32_t* targets, std::int64_t rows,
                                    std::int64_t vocab, std::int64_t columns, float gradient_scale) {
  for (std::int64_t r = 0; r < rows; ++r) {
    float* const row = logits + r * columns;
    const float highest = row_maximum(row, vocab);
    const float target_logit = row[targets[r]];
    Lanes sums = {};
    for_lanes(vocab, [&](std::int64_t i, auto part) {
      const Lanes e = exponential(load(row + i, part, kLowest) - highest);
      sums += e;
      store(row + i, e, part);
    });
    const float total = sum(sums);
    const float factor = gradient_scale / total;
    for_lanes(vocab, [&](std::int64_t i, auto part) { store(row + i, load(row + i, part) * factor, part); });
    row[targets[r]] -= gradient_scale;
    for (std::int64_t v = vocab; v < columns; ++v) row[v] = 0;
    losses[r] = __builtin_logf(total) + highest - target_logit;
  }
}

void cross_entropy_forward(float* losses, const float* logits, const std::int32_t* targets, std::int64_t rows,
                           std::int64_t vocab, std::int64_t columns) {
  for (std::int64_t r = 0; r < rows; ++r) {
    const float* const row = logits + r * columns;
    const float highest = row_maximum(row, vocab);
    Lanes sums = {};
    for_lanes(vocab, [&](std::int64_t i, auto part) { sums += exponential(load(row + i, part, kLowest) - highest); });
    losses[r] = __builtin_logf(sum(sums)) + highest - row[targets[r]];
  }
}

}  // namespace strake::kernels::cpu::STRAKE_VECTOR_NAMESPACE
