// AdamW (Loshchilov and Hutter 2019) over the ranges of parameters that a rank owns, with the gradient's norm and its
// clipping.
// Threads: the training thread.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/optimizer.h"
#include "models/parameters/replicated_parameters.h"

namespace strake::models {

struct AdamWOptions {
  double beta1, beta2, epsilon, weight_decay;
  double clip_norm;  // of the whole gradient; 0: no clipping
};

class AdamW {
 public:
  struct Memory {
    Arena &moments, &scalars;
  };
  AdamW(const ReplicatedParameters& parameters, const AdamWOptions& options, Memory memory);

  // Both read reduced gradients. `step`: from 1.
  void measure_norm(Stream& stream, const ReplicatedParameters& parameters);
  void update(Stream& stream, const ReplicatedParameters& parameters, double learning_rate, std::int64_t step);

  const Tensor& norm() const { return norm_; }  // [1], of the gradient before clipping
  const Tensor& first_moment() const { return first_moment_; }
  const Tensor& second_moment() const { return second_moment_; }

 private:
  AdamWOptions options_;
  std::vector<kernels::FlatSegment> segments_;
  Tensor first_moment_, second_moment_;
  Tensor norm_, clip_, block_sums_;
};

}  // namespace strake::models
