#include "kernels/optimizer.h"

#include "kernels/cpu/vector/lanes.h"

namespace strake::kernels::cpu::STRAKE_VECTOR_NAMESPACE {

// The order of reference::sum_of_squares. Squares of floats are exact in double, so that even the bits are those
// of the reference, on every instruction set.
double sum_of_squares(const float* gradients, std::int64_t elems) {
  constexpr std::int64_t kDoubles = kLanes / 2;  // in one register
  constexpr std::int64_t kRegisters = kNormLanes / kDoubles;
  using Doubles = double __attribute__((vector_size(sizeof(double) * kDoubles)));
  using Floats = float __attribute__((vector_size(sizeof(float) * kDoubles), aligned(alignof(float)), may_alias));

  Doubles sums[kRegisters] = {};
  std::int64_t i = 0;
  for (; i + kNormLanes <= elems; i += kNormLanes) {
    for (std::int64_t part = 0; part < kRegisters; ++part) {
      const auto* const from = reinterpret_cast<const Floats*>(gradients + i + part * kDoubles);
      const Doubles values = __builtin_convertvector(*from, Doubles);
      sums[part] += values * values;
    }
  }
  double lanes[kNormLanes];
  __builtin_memcpy(lanes, sums, sizeof lanes);
  for (std::int64_t lane = 0; i < elems; ++i, ++lane) {
    const double value = static_cast<double>(gradients[i]);
    lanes[lane] += value * value;
  }
  for (std::int64_t half = kNormLanes / 2; half > 0; half /= 2) {
    for (std::int64_t lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  }
  return lanes[0];
}

void adamw(float* weights, float* first_moment, float* second_moment, const float* gradients, std::int64_t elems,
           float clip, const AdamWFactors& factors) {
  const auto beta1 = static_cast<float>(factors.beta1), one_minus_beta1 = static_cast<float>(factors.one_minus_beta1);
  const auto beta2 = static_cast<float>(factors.beta2), one_minus_beta2 = static_cast<float>(factors.one_minus_beta2);
  const auto epsilon = static_cast<float>(factors.epsilon), step_size = static_cast<float>(factors.step_size);
  const auto second_moment_scale = static_cast<float>(factors.second_moment_scale);
  const auto kept = static_cast<float>(factors.keep);
  for_lanes(elems, [&](std::int64_t i, auto part) {
    const Lanes g = load(gradients + i, part) * clip;
    const Lanes m = beta1 * load(first_moment + i, part) + one_minus_beta1 * g;
    const Lanes v = beta2 * load(second_moment + i, part) + one_minus_beta2 * g * g;
    store(first_moment + i, m, part);
    store(second_moment + i, v, part);
    const Lanes denominator = square_root(v * second_moment_scale) + epsilon;
    store(weights + i, load(weights + i, part) * kept - step_size * m / denominator, part);
  });
}

}  // namespace strake::kernels::cpu::STRAKE_VECTOR_NAMESPACE
