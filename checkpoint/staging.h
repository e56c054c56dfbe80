// Staging: host memory that a rank's part of a checkpoint goes through, in both directions. Reserved with the rest of a
// rank's memory, also where a run is only planned.
// Threads: the training thread. Errors: none.
#pragma once

#include <span>
#include <vector>

#include "checkpoint/shard_plan.h"
#include "runtime/device/tensor.h"

namespace strake::checkpoint {

struct Staging {
  std::vector<Tensor> shard;  // for each range that the rank writes
  Tensor all;                 // u8, of loading: the shard's memory if that is enough, else memory of its own
};

// A tensor for each range of `planned`, what a rank writes of `table`.
std::vector<Tensor> reserve_shard(Arena& arena, const TensorTable& table, std::span<const PlannedRange> planned);
Staging reserve_staging(Arena& host, const TensorTable& table, std::span<const PlannedRange> planned);

}  // namespace strake::checkpoint
