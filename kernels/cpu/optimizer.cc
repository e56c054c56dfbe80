#include "kernels/cpu/optimizer.h"

#include <cmath>

namespace strake::kernels::reference {

template <typename T>
double sum_of_squares(const T* gradients, std::int64_t elems) {
  double sums[kNormLanes] = {};
  for (std::int64_t i = 0; i < elems; ++i) {
    const double value = static_cast<double>(gradients[i]);
    sums[i % kNormLanes] += value * value;
  }
  for (std::int64_t half = kNormLanes / 2; half > 0; half /= 2) {
    for (std::int64_t lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
  }
  return sums[0];
}

template <typename T>
void adamw(T* weights, T* first_moment, T* second_moment, const T* gradients, std::int64_t elems, T clip,
           const AdamWScalars& scalars) {
  const T beta1 = T(scalars.beta1), one_minus_beta1 = T(scalars.one_minus_beta1);
  const T beta2 = T(scalars.beta2), one_minus_beta2 = T(scalars.one_minus_beta2);
  for (std::int64_t i = 0; i < elems; ++i) {
    const T g = gradients[i] * clip;
    const T m = beta1 * first_moment[i] + one_minus_beta1 * g;
    const T v = beta2 * second_moment[i] + one_minus_beta2 * g * g;
    first_moment[i] = m;
    second_moment[i] = v;
    const T denominator = std::sqrt(v * T(scalars.second_moment_scale)) + T(scalars.epsilon);
    weights[i] = weights[i] * T(scalars.keep) - T(scalars.step_size) * m / denominator;
  }
}

#define STRAKE_INSTANTIATE(T)                             \
  template double sum_of_squares(const T*, std::int64_t); \
  template void adamw(T*, T*, T*, const T*, std::int64_t, T, const AdamWScalars&);
STRAKE_INSTANTIATE(float)
STRAKE_INSTANTIATE(double)
#undef STRAKE_INSTANTIATE

}  // namespace strake::kernels::reference
