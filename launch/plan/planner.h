// Planner: what a rank of a run takes, without taking it and without token files. The step is declared on a plan device
// (runtime/device/recording.h), as it is before a run takes its memory, so the numbers are those of the run.
// Threads: one. Errors: ConfigError for what a run would refuse as well.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/shard_plan.h"
#include "comm/bucket_plan.h"
#include "launch/train/trainer.h"

namespace strake::launch {

// What is planned for.
struct PlanTarget {
  DeviceKind kind = DeviceKind::kCpu;
  const Device* device = nullptr;  // of that kind, here; null: on GPUs, workspace and context are estimated
  int ranks = 1;
  bool schedule = false;  // RankPlan::schedule is wanted
};

// What lies in memory at the fullest operation: of all layers together, "h.*.attn.qkv".
struct PeakShare {
  std::string name;
  std::int64_t count = 0;
  std::size_t size_bytes = 0;
};

// Of a rank in a step.
struct RankPlan {
  Job job;
  std::int64_t parameters = 0;
  double flops = 0;  // of the model's matrix products
  double recomputed_flops = 0;
  struct {
    double forward, backward, optimizer;  // through the device's memory
    double input;                         // to the device
    double sent;                          // to other ranks
  } bytes{};
  comm::BucketPlan buckets;
  std::int64_t split_rows_bytes = 0;  // CommBytes::split_rows
  std::string at_end;                 // describe_at_end()
  std::string schedule;               // streams, operations and waits of a step; of many micro-batches only the first
  MemoryTable memory;
  std::string fullest_operation;
  std::size_t alive_bytes = 0;  // there
  std::vector<PeakShare> peak;  // largest first

  // Of what there may be too little: of GPUs their own memory, on the CPU all of it.
  std::size_t needed_bytes() const;
  PlanTarget target;
};

class Planner {
 public:
  // `vocab`: ids are below it.
  Planner(const PlanTarget& target, std::int64_t vocab) : target_(target), vocab_(vocab) {}

  // `most_micro_batches`: of those that are declared. Memory is what it is with all of them from two on; FLOPs and
  // bytes are of those that are declared.
  RankPlan plan(const Config& config, std::int64_t most_micro_batches = std::numeric_limits<std::int64_t>::max());
  // Can the kernels compute it at all?
  bool possible(const Config& config) const;

 private:
  // What the first rank writes of state that all ranks hold alike: no less than the others. Plans of one model have
  // one.
  const std::vector<checkpoint::PlannedRange>& first_shard(std::vector<checkpoint::HeldRange> held);

  PlanTarget target_;
  std::int64_t vocab_;
  std::vector<checkpoint::HeldRange> shard_of_;
  std::vector<checkpoint::PlannedRange> first_shard_;  // of those
};

}  // namespace strake::launch
