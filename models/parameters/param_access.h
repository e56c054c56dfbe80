// What a block sees of parameters, and what it is given to enqueue a pass.
// Threads: the training thread.
#pragma once

#include <string_view>

#include "kernels/matmul.h"  // Accumulate
#include "runtime/base/check.h"
#include "runtime/device/device.h"
#include "runtime/device/param_spec.h"

namespace strake::models {

class ParamAccess {
 public:
  virtual ~ParamAccess() = default;

  // For the kernels enqueued next: asking is needing, so a weight that is gathered is waited for here.
  virtual Tensor weight(ParamId id) = 0;
  virtual Tensor gradient(ParamId id) = 0;
  // While backward is being enqueued: the gradient is final on the compute stream. In layout order, once each.
  virtual void ready(ParamId id) = 0;

  // Of a table whose gradient is split (models/split_embedding.h), in each micro-batch: which rows the embedding adds
  // to, before backward computes anything; and what it adds, [as many, channels], final behind this call.
  virtual void split_ids(const Tensor&) { check_failed("split_ids", "these parameters have no split table"); }
  virtual void split_rows(const Tensor&) { check_failed("split_rows", "these parameters have no split table"); }
};

// One micro-batch on its way through the blocks.
struct Pass {
  Stream& compute;
  ParamAccess& params;
  Phase phase = Phase::kForward;                                     // of forward: or kEval
  bool recomputed = false;                                           // forward is run again, for backward
  kernels::Accumulate accumulate = kernels::Accumulate::kOverwrite;  // of gradients

  Label forward(std::string_view name) const { return {name, phase, recomputed}; }
  Label backward(std::string_view name) const { return {name, Phase::kBackward}; }
  // Within backward, what forward did not keep.
  Pass again() const { return {.compute = compute, .params = params, .phase = Phase::kBackward, .recomputed = true}; }
};

}  // namespace strake::models
