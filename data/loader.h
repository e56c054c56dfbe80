// Loader: token batches on the device, ahead of the step that needs them.
//
// A prefetch thread reads samples into host slots; the training thread enqueues their copies on the copy-in
// stream as soon as a host slot is full and a device slot is free, so that copies run ahead of compute. Three
// hazards: the step must not read before the copy (RAW: the caller waits for Batch::ready), the copy must not
// overwrite a batch still in use (WAR: the copy stream waits for the event recorded by release()), and the
// prefetch thread must not refill a host slot before the copy out of it (WAR: it waits for that copy's event).
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
#include <string>

#include "data/sample_order.h"
#include "data/token_source.h"
#include "runtime/device/device.h"

namespace strake::data {

struct Batch {
  Tensor tokens;       // [micro_batch, sequence] i32, device memory
  Tensor targets;      // the same shifted by one token
  const Event* ready;  // complete when both are on the device
  int slot;
};

struct LoaderOptions {
  std::string name = "train";     // of its slots, events, operations and thread
  std::int64_t global_batch = 0;  // sequences a step, over all ranks: a multiple of ranks * micro_batch
  std::int64_t micro_batch = 0;   // sequences a batch on this rank
  std::int64_t sequence = 0;      // tokens a sequence
  int rank = 0;                   // on the data axis
  int ranks = 1;
  std::int64_t first_sample = 0;  // global index of the first sample: step * global_batch
  int host_slots = 4;             // prefetch depth in batches
  std::int64_t vocab = 0;         // ids >= vocab are a DataError
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
  // The next batch of this rank. Blocks the host only while the prefetch thread is behind. Batches come micro-batch
  // by micro-batch, step by step, without end. REQUIRES: fewer than kDeviceSlots batches are unreleased.
  // Ordering: `compute.wait(*batch.ready, ...)` before the first read.
  Batch next();
  // The batch is no longer read once what is enqueued on `compute` so far has run.
  void release(const Batch& batch, Stream& compute);
  // Continues at this global sample index; drops what was prefetched and forgets an error. Blocks until the
  // prefetch thread has finished the batch in its hands. REQUIRES: every batch released.
  void seek(std::int64_t first_sample);

  // next() on a plan device: records the copy with its wait, and reads nothing.
  Batch plan_batch();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace strake::data
