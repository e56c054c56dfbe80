// ScalarMailbox: device scalars (loss, gradient norm, fingerprints) that the host reads some steps later.
//
// Posting is an operation of a stream; reading never synchronises: the caller looks at a slot once an event
// recorded behind the post is complete. Looking orders nothing (see Device::complete).
// Threads: the training thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/device/device.h"

namespace strake {

class ScalarMailbox {
 public:
  // Reserves `slots` x `values` scalars of `dtype` (f32, f64 or i64) in `host` (MemoryKind::kHost).
  ScalarMailbox(Arena& host, DType dtype, std::size_t values, std::size_t slots);

  // Value `index` of `slot` becomes the one element of `scalar`.
  void post(Stream& stream, Label label, std::size_t slot, std::size_t index, const Tensor& scalar);
  // REQUIRES: an event recorded on the posting stream after post() is complete, and the slot was not posted again.
  double look(std::size_t slot, std::size_t index) const;
  std::int64_t look_integer(std::size_t slot, std::size_t index) const;  // of i64

 private:
  const Tensor& cell(std::size_t slot, std::size_t index) const { return cells_.at(slot * values_ + index); }

  std::size_t values_;
  std::vector<Tensor> cells_;  // each on its own cache line
};

}  // namespace strake
