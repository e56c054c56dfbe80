// Readable reference of kernels/optimizer.h on plain arrays, for float and double.
#pragma once

#include <cstdint>

namespace strake::kernels::reference {

// Sum of squares of one block, in double. Always in this order: kNormLanes partial sums, element i in
// partial sum i % kNormLanes, then the partial sums added pairwise (i and i + half, halving).
inline constexpr std::int64_t kNormLanes = 16;
template <typename T>
double sum_of_squares(const T* gradients, std::int64_t elems);

// The scalars of one AdamW step, worked out once in double.
struct AdamWScalars {
  double beta1;
  double one_minus_beta1;
  double beta2;
  double one_minus_beta2;
  double epsilon;
  double step_size;            // learning rate / (1 - beta1^step)
  double second_moment_scale;  // 1 / (1 - beta2^step)
  double keep;                 // what decay leaves of a weight: 1 - learning rate * weight decay, or 1
};

// weights, moments of one segment; gradients scaled by clip first.
template <typename T>
void adamw(T* weights, T* first_moment, T* second_moment, const T* gradients, std::int64_t elems, T clip,
           const AdamWScalars& scalars);

}  // namespace strake::kernels::reference
