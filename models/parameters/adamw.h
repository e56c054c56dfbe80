// AdamW (Loshchilov and Hutter 2019) over the ranges of parameters that a rank owns, with the gradient's norm and its
// clipping.
// Threads: the training thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/optimizer.h"
#include "models/parameters/replicated_parameters.h"
#include "runtime/device/scalar_ring.h"

namespace strake::models {

class AdamW {
 public:
  struct Memory {
    Arena &moments, &scalars, &host;
  };
  // clip_norm: of the whole gradient; 0: no clipping. Of `slots` steps as many are in flight, as ScalarRing says.
  AdamW(const ReplicatedParameters& parameters, const kernels::AdamWOptions& options, double clip_norm,
        std::size_t slots, Memory memory);

  // Both read reduced gradients. `step`: from 1.
  void measure_norm(Stream& stream, const ReplicatedParameters& parameters);
  void update(Stream& stream, const ReplicatedParameters& parameters, double learning_rate, std::int64_t step);

  const Tensor& norm() const { return norm_; }  // [1], of the gradient before clipping
  const Tensor& first_moment() const { return first_moment_; }
  const Tensor& second_moment() const { return second_moment_; }

 private:
  kernels::AdamWOptions options_;
  double clip_norm_;
  std::size_t slots_;
  ScalarRing step_scalars_;
  std::vector<kernels::FlatSegment> segments_;
  Tensor first_moment_, second_moment_;
  Tensor norm_, clip_, block_sums_;
  Tensor scalars_;  // kernels::AdamWScalars of the step
};

}  // namespace strake::models
