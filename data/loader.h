// Loader: the tokens of whole steps on the device, ahead of the step that needs them.
//
// What a rank reads in a step, all its micro-batches, is one batch: one copy, one wait, one release. A prefetch thread
// reads samples into host slots; the training thread enqueues their copies on the copy-in stream as soon as a host slot
// is full and a device slot is free, so that copies run ahead of compute. Three hazards: the step must not read before
// the copy (RAW: the caller waits for StepBatch::ready), the copy must not overwrite a batch still in use (WAR: the
// copy stream waits for the event recorded by release()), and the prefetch thread must not refill a host slot before
// the copy out of it (WAR: it waits for that copy's event).
//
// Order: batch contents are a pure function of (order, global sample index); see sample_order.h. Sample s of the
// order is tokens [s * sequence, s * sequence + sequence] of the source: inputs are all but the last, targets all
// but the first.
// Threads: the training thread calls; the prefetch thread only fills host memory and sleeps when all slots are
// full. It hands nothing back but relaxed counters, so the training thread learns no order by luck and a missing
// wait elsewhere stays visible to ThreadSanitizer.
// Errors: what the prefetch thread meets (DataError, IoError, the device's error) is thrown by the next() whose
// batch it is; the batches before it are good. Memory: all of it is reserved by the constructor.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "data/sample_order.h"
#include "data/token_source.h"
#include "runtime/device/device.h"

namespace strake::data {

struct MicroBatch {
  Tensor tokens;   // [micro_batch, sequence] i32, device memory
  Tensor targets;  // the same shifted by one token
};

struct StepBatch {
  std::span<const MicroBatch> micro_batches;  // in the order in which they are read; lives as long as the loader
  const Event* ready;                         // complete when all are on the device
  int slot;
};

struct LoaderOptions {
  std::string name = "train";      // of its slots, events, operations and thread
  std::int64_t micro_batches = 1;  // a step
  std::int64_t micro_batch = 0;    // sequences in one, on this rank
  std::int64_t sequence = 0;       // tokens a sequence
  int rank = 0;                    // on the data axis
  int ranks = 1;
  std::int64_t first_sample = 0;  // global index of the first sample: of step k, k * step_samples()
  int host_slots = 3;             // prefetch depth in steps: one is filled, one is full, one is being copied
  std::int64_t vocab = 0;         // ids >= vocab are a DataError

  std::int64_t step_samples() const { return ranks * micro_batches * micro_batch; }  // of all ranks
};

class Loader {
 public:
  static constexpr int kDeviceSlots = 2;

  // Reserves its slots in `host` (MemoryKind::kHost) and `device_memory`, both allocated by the caller before
  // start(). All arguments outlive the loader; `order` is copied. REQUIRES: every size in `options` >= 1.
  Loader(Device& device, Stream& copy_in, Arena& host, Arena& device_memory, TokenSource& source,
         const SampleOrder& order, LoaderOptions options);
  // Stops prefetching and waits for the copies already enqueued: they read host slots.
  ~Loader();

  // Starts prefetching. Optional: the first next() does it too. REQUIRES: arenas are allocated.
  void start();
  // This rank's part of the next step, without end. Blocks the host only while the prefetch thread is behind.
  // REQUIRES: fewer than kDeviceSlots batches are unreleased.
  // Ordering: `compute.wait(*batch.ready, ...)` before the first read.
  StepBatch next();
  // The batch is no longer read once what is enqueued on `compute` so far has run.
  void release(const StepBatch& batch, Stream& compute);
  // Continues at this global sample index; drops what was prefetched and forgets an error. Blocks until the
  // prefetch thread has finished the batch in its hands. REQUIRES: every batch released.
  void seek(std::int64_t first_sample);

  // next() on a plan device: records the copy with its wait, and reads nothing.
  StepBatch plan_batch();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace strake::data
