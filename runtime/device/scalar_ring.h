// ScalarRing: host scalars (learning rate, step) that a step reads from device memory, so that what is enqueued, or was
// captured once, is the same in every step.
//
// put() is the host's and waits for nothing; fetch() is an operation of a stream that copies the slot as it is when
// the stream gets there. The order between them: a slot is put before its fetch is enqueued, and put again only when
// that fetch has run. A training step uses slot step % slots. The training thread reads the numbers of step k, whose
// end it has seen, before it enqueues step k + 2: with three slots or more the fetch of the slot's last use has run
// long ago. Neither side orders anything else (see Device::complete).
// Threads: the training thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/device/device.h"

namespace strake {

class ScalarRing {
 public:
  // Reserves `slots` x `values` f64 in `host` (MemoryKind::kHost).
  ScalarRing(Arena& host, std::int64_t values, std::size_t slots);

  // Effect: the next fetch of `slot` gives these. REQUIRES: the arena is allocated; the slot's last fetch has run, or
  // cannot have begun.
  void put(std::size_t slot, std::span<const double> values);
  // Enqueues: `scalars` (f64 [values], device memory) = what was put into `slot`.
  void fetch(Stream& stream, Label label, std::size_t slot, const Tensor& scalars) const;

 private:
  std::vector<Tensor> slots_;  // [values] f64
};

}  // namespace strake
