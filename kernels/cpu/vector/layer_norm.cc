#include "kernels/cpu/vector/lanes.h"

namespace strake::kernels::cpu::STRAKE_VECTOR_NAMESPACE {
namespace {

// One row from its sum on: second pass for the variance, third for the output.
inline void normalise_row(float* y, float* mean, float* rstd, const float* x, float row_sum, const float* weight,
                          const float* bias, std::int64_t channels, double epsilon) {
  const float row_mean = row_sum / static_cast<float>(channels);
  Lanes squares = {};
  for_lanes(channels, [&](std::int64_t i, auto part) {
    const Lanes centred = keep(load(x + i, part) - row_mean, part);
    squares += centred * centred;
  });
  const float variance = sum(squares) / static_cast<float>(channels);
  const float row_rstd = 1.0f / __builtin_sqrtf(variance + static_cast<float>(epsilon));
  for_lanes(channels, [&](std::int64_t i, auto part) {
    const Lanes normal = (load(x + i, part) - row_mean) * row_rstd;
    store(y + i, normal * load(weight + i, part) + load(bias + i, part), part);
  });
  *mean = row_mean;
  *rstd = row_rstd;
}

}  // namespace

void layer_norm_forward(float* y, float* mean, float* rstd, const float* x, const float* weight, const float* bias,
                        std::int64_t rows, std::int64_t channels, double epsilon) {
  for (std::int64_t r = 0; r < rows; ++r, x += channels, y += channels) {
    Lanes row_sum = {};
    for_lanes(channels, [&](std::int64_t i, auto part) { row_sum += load(x + i, part); });
    normalise_row(y, mean + r, rstd + r, x, sum(row_sum), weight, bias, channels, epsilon);
  }
}

void residual_layer_norm_forward(float* x_out, float* y, float* mean, float* rstd, const float* x, const float* delta,
                                 const float* weight, const float* bias, std::int64_t rows, std::int64_t channels,
                                 double epsilon) {
  for (std::int64_t r = 0; r < rows; ++r, x_out += channels, x += channels, delta += channels, y += channels) {
    Lanes row_sum = {};
    for_lanes(channels, [&](std::int64_t i, auto part) {
      const Lanes value = load(x + i, part) + load(delta + i, part);
      store(x_out + i, value, part);
      row_sum += value;
    });
    normalise_row(y, mean + r, rstd + r, x_out, sum(row_sum), weight, bias, channels, epsilon);
  }
}

void layer_norm_backward(float* dx, float* dweight, float* dbias, const float* dy, const float* x, const float* mean,
                         const float* rstd, const float* weight, std::int64_t rows, std::int64_t channels,
                         bool accumulate) {
  if (!accumulate) {
    for_lanes(channels, [&](std::int64_t i, auto part) {
      store(dweight + i, Lanes{}, part);
      store(dbias + i, Lanes{}, part);
    });
  }
  // Rows in blocks: sums over rows are added up in registers within a block.
  constexpr std::int64_t kBlock = 8;
  for (std::int64_t begin = 0; begin < rows; begin += kBlock) {
    const std::int64_t block = rows - begin < kBlock ? rows - begin : kBlock;
    float average_g[kBlock];
    float average_gn[kBlock];
    for (std::int64_t r = 0; r < block; ++r) {
      const std::int64_t row = (begin + r) * channels;
      Lanes g_sum = {};
      Lanes gn_sum = {};
      for_lanes(channels, [&](std::int64_t i, auto part) {
        const Lanes g = load(dy + row + i, part) * load(weight + i, part);
        g_sum += g;
        gn_sum += g * (load(x + row + i, part) - mean[begin + r]);  // g is zero in lanes that do not count
      });
      average_g[r] = sum(g_sum) / static_cast<float>(channels);
      average_gn[r] = sum(gn_sum) * rstd[begin + r] / static_cast<float>(channels);
    }
    for_lanes(channels, [&](std::int64_t i, auto part) {
      const Lanes w = load(weight + i, part);
      Lanes weight_sum = {};
      Lanes bias_sum = {};
      for (std::int64_t r = 0; r < block; ++r) {
        const std::int64_t at = (begin + r) * channels + i;
        const Lanes dy_part = load(dy + at, part);
        const Lanes normal = (load(x + at, part) - mean[begin + r]) * rstd[begin + r];
        weight_sum += dy_part * normal;
        bias_sum += dy_part;
        const Lanes gradient = (dy_part * w - average_g[r] - normal * average_gn[r]) * rstd[begin + r];
        store(dx + at, load(dx + at, part) + gradient, part);
      }
      store(dweight + i, load(dweight + i, part) + weight_sum, part);
      store(dbias + i, load(dbias + i, part) + bias_sum, part);
    });
  }
}

}  // namespace strake::kernels::cpu::STRAKE_VECTOR_NAMESPACE
