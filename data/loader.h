// Loader: token batches on the device, ahead of the step that needs them.
//
// A prefetch thread reads samples into host slots; the training thread enqueues their copies on the
// copy-in stream as soon as a host slot is full, one batch ahead of the one in use. Two hazards, both guarded
// by events: the step must not read before the copy (RAW: the caller waits for Batch::ready), and the copy must
// not overwrite a batch still in use (WAR: the copy stream waits for the event recorded by release()).
//
// Order: batch contents are a pure function of (order, global sample index); see sample_order.h.
// Threads: the training thread calls; the prefetch thread only fills host memory.
// Errors: what the prefetch thread meets (DataError with file and offset) is thrown by next().
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
  std::string name = "train";       // of its slots, events and thread
  std::int64_t global_batch;        // sequences a step, over all ranks
  std::int64_t micro_batch;         // sequences a batch on this rank
  std::int64_t sequence;            // tokens a sequence
  int rank = 0;                     // on the data axis
  int ranks = 1;
  std::int64_t first_sample = 0;    // global index of the first sample: step * global_batch
  int host_slots = 4;               // prefetch depth in batches
  std::int64_t vocab = 0;           // ids >= vocab are a DataError
};

class Loader {
 public:
  // Reserves its slots in `host` and `device_memory` (both allocated by the caller before the first next()).
  // source, order, device, copy_in outlive the loader.
  Loader(Device& device, Stream& copy_in, Arena& host, Arena& device_memory, TokenSource& source,
         const SampleOrder& order, LoaderOptions options);
  ~Loader();

  // The next batch of this rank. Blocks the host only while the prefetch thread is behind.
  Batch next();
  // The batch is no longer read once what is enqueued on `compute` has run.
  void release(const Batch& batch, Stream& compute);
  // Continues at this global sample index; drops what was prefetched. REQUIRES: every batch released.
  void seek(std::int64_t first_sample);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace strake::data
