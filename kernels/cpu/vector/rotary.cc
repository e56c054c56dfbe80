#include "kernels/cpu/vector/lanes.h"

namespace strake::kernels::cpu::STRAKE_VECTOR_NAMESPACE {

// Sines and cosines are the library's: they serve every head of every sequence.
void rotary(float* y, const std::int64_t* y_heads, const float* x, const std::int64_t* x_heads, std::int64_t turned,
            std::int64_t moved, std::int64_t batch, std::int64_t length, std::int64_t row, std::int64_t pairs,
            const double* frequencies, double direction) {
  for (std::int64_t t = 0; t < length; ++t) {
    for_lanes(pairs, [&](std::int64_t i, auto part) {
      Lanes cosine = {}, sine = {};
      for (std::int64_t lane = 0; turned > 0 && lane < kLanes && i + lane < pairs; ++lane) {
        const double angle = static_cast<double>(t) * frequencies[i + lane];
        cosine[lane] = static_cast<float>(__builtin_cos(angle));
        sine[lane] = static_cast<float>(direction * __builtin_sin(angle));
      }
      for (std::int64_t b = 0; b < batch; ++b) {
        const float* const x_row = x + (b * length + t) * row + i;
        float* const y_row = y + (b * length + t) * row + i;
        for (std::int64_t h = 0; h < moved; ++h) {
          const Lanes low = load(x_row + x_heads[h], part), high = load(x_row + x_heads[h] + pairs, part);
          store(y_row + y_heads[h], h < turned ? low * cosine - high * sine : low, part);
          store(y_row + y_heads[h] + pairs, h < turned ? high * cosine + low * sine : high, part);
        }
      }
    });
  }
}

}  // namespace strake::kernels::cpu::STRAKE_VECTOR_NAMESPACE
