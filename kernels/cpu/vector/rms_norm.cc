#include "kernels/cpu/vector/lanes.h"

namespace strake::kernels::cpu::STRAKE_VECTOR_NAMESPACE {
namespace {

// One row from its sum of squares on.
inline void normalise_row(float* y, float* rstd, const float* x, float squares, const float* weight,
                          std::int64_t channels, float epsilon) {
  const float row_rstd = 1.0f / __builtin_sqrtf(squares / static_cast<float>(channels) + epsilon);
  for_lanes(channels, [&](std::int64_t i, auto part) {
    store(y + i, load(x + i, part) * row_rstd * load(weight + i, part), part);
  });
  *rstd = row_rstd;
}

}  // namespace

void rms_norm_forward(float* y, float* rstd, const float* x, const float* weight, std::int64_t rows,
                      std::int64_t channels, float epsilon) {
  for (std::int64_t r = 0; r < rows; ++r, x += channels, y += channels) {
    Lanes squares = {};
    for_lanes(channels, [&](std::int64_t i, auto part) {
      const Lanes value = load(x + i, part);
      squares += value * value;
    });
    normalise_row(y, rstd + r, x, sum(squares), weight, channels, epsilon);
  }
}

void residual_rms_norm_forward(float* x_out, float* y, float* rstd, const float* x, const float* delta,
                               const float* weight, std::int64_t rows, std::int64_t channels, float epsilon) {
  for (std::int64_t r = 0; r < rows; ++r, x_out += channels, x += channels, delta += channels, y += channels) {
    Lanes squares = {};
    for_lanes(channels, [&](std::int64_t i, auto part) {
      const Lanes value = load(x + i, part) + load(delta + i, part);
      store(x_out + i, value, part);
      squares += value * value;
    });
    normalise_row(y, rstd + r, x_out, sum(squares), weight, channels, epsilon);
  }
}

void rms_norm_backward(float* dx, float* dweight, const float* dy, const float* x, const float* rstd,
                       const float* weight, std::int64_t rows, std::int64_t channels, bool accumulate) {
  if (!accumulate) for_lanes(channels, [&](std::int64_t i, auto part) { store(dweight + i, Lanes{}, part); });
  // Rows in blocks: sums over rows are added up in registers within a block.
  constexpr std::int64_t kBlock = 8;
  for (std::int64_t begin = 0; begin < rows; begin += kBlock) {
    const std::int64_t block = rows - begin < kBlock ? rows - begin : kBlock;
    float average_gn[kBlock];
    for (std::int64_t r = 0; r < block; ++r) {
      const std::int64_t row = (begin + r) * channels;
      Lanes gn_sum = {};
      for_lanes(channels, [&](std::int64_t i, auto part) {
        gn_sum += load(dy + row + i, part) * load(weight + i, part) * load(x + row + i, part);
      });
      average_gn[r] = sum(gn_sum) * rstd[begin + r] / static_cast<float>(channels);
    }
    for_lanes(channels, [&](std::int64_t i, auto part) {
      const Lanes w = load(weight + i, part);
      Lanes weight_sum = {};
      for (std::int64_t r = 0; r < block; ++r) {
        const std::int64_t at = (begin + r) * channels + i;
        const Lanes dy_part = load(dy + at, part);
        const Lanes normal = load(x + at, part) * rstd[begin + r];
        weight_sum += dy_part * normal;
        store(dx + at, load(dx + at, part) + (dy_part * w - normal * average_gn[r]) * rstd[begin + r], part);
      }
      store(dweight + i, load(dweight + i, part) + weight_sum, part);
    });
  }
}

}  // namespace strake::kernels::cpu::STRAKE_VECTOR_NAMESPACE
