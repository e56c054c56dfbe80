// Passing on: what several ranks hold alike, one of them has read, and gives to the others from device memory to device
// memory. So replicated state is read once, however many ranks there are.
//
// Threads: the training thread. Errors: the communicator's, which some ranks alone may meet.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "checkpoint/shard_plan.h"
#include "comm/communicator.h"
#include "runtime/device/device.h"
#include "runtime/device/param_spec.h"

namespace strake::checkpoint {

// How ranks reach each other's device memory. The communicator is of all ranks that keep the checkpoint, and of this
// stream.
struct Exchange {
  comm::Communicator& communicator;
  Stream& stream;
};

// A range that one rank has and the others of its holders lack.
struct SharedRange {
  std::size_t holders = 0;  // index into SharedRanges::holders
  std::size_t reader = 0;   // the rank that has it
  std::size_t entry = 0;    // of this rank's table
  std::int64_t begin_elems = 0, elems = 0;

  bool operator==(const SharedRange&) const = default;
};

struct SharedRanges {
  std::vector<std::vector<std::size_t>> holders;  // ranks, ascending, two and more: the same lists on every rank
  std::vector<SharedRange> ranges;                // that this rank holds, in one order on all that hold them
};
SharedRanges shared_ranges(std::span<const std::vector<HeldRange>> held_by_rank,
                           std::span<const std::vector<PlannedRange>> planned_by_rank, std::size_t rank);

// Collective. Returns when this rank has all of its `table`. REQUIRES: it has what it would write; nothing enqueued
// still uses the tensors.
void pass_on(const SharedRanges& shared, const TensorTable& table, Exchange exchange);

}  // namespace strake::checkpoint
