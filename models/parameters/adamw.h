// AdamW (Loshchilov and Hutter 2019) over the ranges of parameters that a rank owns, with the gradient's norm and its
// clipping.
// Threads: the training thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/optimizer.h"
#include "models/parameters/parameters.h"
#include "runtime/device/scalar_ring.h"

namespace strake::models {

class AdamW {
 public:
  struct Memory {
    Arena &moments, &scalars, &host;
  };
  // clip_norm: of the whole gradient; 0: no clipping. Of `slots` steps as many are in flight, as ScalarRing says.
  AdamW(const Parameters& parameters, const kernels::AdamWOptions& options, double clip_norm, std::size_t slots,
        Memory memory);

  // Both read reduced gradients. `step`: from 1.
  void measure_norm(Stream& stream, Parameters& parameters);
  void update(Stream& stream, Parameters& parameters, double learning_rate, std::int64_t step);

  const Tensor& norm() const { return norm_; }  // [1], of the whole gradient before clipping
  // Of owned pieces one behind the other (OwnedPiece::state_begin_elems).
  const Tensor& first_moment() const { return first_moment_; }
  const Tensor& second_moment() const { return second_moment_; }

 private:
  struct Piece {
    std::vector<kernels::FlatSegment> segments;
    std::int64_t first_block;  // of the norm's, counted over all parameters
  };

  kernels::AdamWOptions options_;
  double clip_norm_;
  std::size_t slots_;
  ScalarRing step_scalars_;
  std::vector<Piece> pieces_;  // of Parameters::owned()
  Tensor first_moment_, second_moment_;
  Tensor norm_, clip_;
  Tensor own_sums_;    // of the norm's blocks of all parameters: those of owned pieces, else 0
  Tensor block_sums_;  // of all ranks
  Tensor scalars_;     // kernels::AdamWScalars of the step
};

}  // namespace strake::models
