#include "kernels/optimizer.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/cpu/body.h"

namespace strake::kernels {
namespace reference {

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

// weights, moments of one segment; gradients scaled by clip first.
template <typename T>
void adamw(T* weights, T* first_moment, T* second_moment, const T* gradients, std::int64_t elems, T clip,
           const AdamWFactors& factors) {
  const T beta1 = T(factors.beta1), one_minus_beta1 = T(factors.one_minus_beta1);
  const T beta2 = T(factors.beta2), one_minus_beta2 = T(factors.one_minus_beta2);
  for (std::int64_t i = 0; i < elems; ++i) {
    const T g = gradients[i] * clip;
    const T m = beta1 * first_moment[i] + one_minus_beta1 * g;
    const T v = beta2 * second_moment[i] + one_minus_beta2 * g * g;
    first_moment[i] = m;
    second_moment[i] = v;
    const T denominator = std::sqrt(v * T(factors.second_moment_scale)) + T(factors.epsilon);
    weights[i] = weights[i] * T(factors.keep) - T(factors.step_size) * m / denominator;
  }
}

}  // namespace reference

namespace cpu {

STRAKE_VECTOR_CODE(sum_of_squares);
STRAKE_VECTOR_CODE(adamw);

}  // namespace cpu

Body SquareSums::on_cpu(CpuCode code) const {
  // The caller's segments may be gone when the body runs.
  return cpu::body(gradients.dtype(), [=, *this, all = std::vector(segments.begin(), segments.end())]<typename T>() {
    double* block_sum = data<double>(block_sums);
    for (const FlatSegment& segment : all) {
      for (std::int64_t done = 0; done < segment.size_elems; done += kNormBlockElems) {
        *block_sum++ = cpu::sum_of_squares.in<T>(code)(data<T>(gradients) + segment.begin_elems + done,
                                                       std::min(kNormBlockElems, segment.size_elems - done));
      }
    }
  });
}

Body GradientNorm::on_cpu(CpuCode) const {
  return cpu::body(norm.dtype(), [*this]<typename T>() {
    const double* const sums = data<double>(block_sums);
    const double root = std::sqrt(std::accumulate(sums, sums + block_sums.elems(), 0.0));
    double factor = max_norm > 0 ? std::min(1.0, max_norm / (root + 1e-6)) : 1.0;
    if (!std::isfinite(root)) factor = std::numeric_limits<double>::quiet_NaN();
    data<T>(norm)[0] = static_cast<T>(root);
    data<T>(clip)[0] = static_cast<T>(factor);
  });
}

Body AdamW::on_cpu(CpuCode code) const {
  return cpu::body(weights.dtype(), [=, *this, all = std::vector(segments.begin(), segments.end())]<typename T>() {
    const double* const step = data<double>(scalars);
    const double learning_rate = step[0], correction1 = step[1], correction2 = step[2];
    const AdamWFactors plain = {
        .beta1 = options.beta1,
        .one_minus_beta1 = 1 - options.beta1,
        .beta2 = options.beta2,
        .one_minus_beta2 = 1 - options.beta2,
        .epsilon = options.epsilon,
        .step_size = learning_rate / correction1,
        .second_moment_scale = 1 / correction2,
        .keep = 1,
    };
    AdamWFactors decaying = plain;
    decaying.keep = 1 - learning_rate * options.weight_decay;
    const T factor = data<T>(clip)[0];
    for (const FlatSegment& segment : all) {
      cpu::adamw.in<T>(code)(data<T>(weights) + segment.begin_elems, data<T>(first_moment) + segment.begin_elems,
                             data<T>(second_moment) + segment.begin_elems, data<T>(gradients) + segment.begin_elems,
                             segment.size_elems, factor, segment.weight_decay ? decaying : plain);
    }
  });
}

}  // namespace strake::kernels
