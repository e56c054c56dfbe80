// Where the collectives of a step lay, on each rank and over all of them.
// Threads: values, pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "launch/train/trainer.h"

namespace strake::launch {

// On one rank, from the step's first mark.
struct StepTimeline {
  double backward_begin_ms = 0, backward_end_ms = 0;  // of the last micro-batch
  struct Bucket {
    double ready_ms = 0, begin_ms = 0, end_ms = 0;  // as GradBuckets::Timing
  };
  std::vector<Bucket> buckets;
  std::optional<Bucket> split_rows;  // of a split token table, behind all buckets
  struct Gather {
    double ready_ms = 0, begin_ms = 0, end_ms = 0, needed_ms = 0;  // as WeightGathers::Timing
  };
  std::vector<Gather> gathers;  // none in a run's first step

  static StepTimeline of(const StepReport& report);
  // Of each bucket, and then of split rows, the part that lies behind backward: from the end of backward or of the
  // bucket before to its own end.
  std::vector<double> exposed_ms() const;
  // As they travel between ranks.
  std::vector<double> to_values() const;
  static StepTimeline from_values(std::span<const double> values);
};

// Medians over steps. A collective waits for the rank that comes last: a time is the latest of the ranks', and what a
// bucket takes to travel is the least of the ranks' time from begin to end, since the last to come waits for nobody.
struct CommTimeline {
  double backward_begin_ms = 0, backward_end_ms = 0;
  struct Bucket {
    std::int64_t bytes = 0;
    bool final_at_end = false;  // by the plan: exposed by structure
    double ready_ms = 0, begin_ms = 0, end_ms = 0, transfer_ms = 0;
    double exposed_ms = 0;  // StepTimeline::exposed_ms
  };
  std::vector<Bucket> buckets;
  std::optional<Bucket> split_rows;
  struct Gather {
    std::int64_t bytes = 0;
    double ready_ms = 0, begin_ms = 0, end_ms = 0, transfer_ms = 0, needed_ms = 0;
  };
  std::vector<Gather> gathers;  // weights of this step's forward, in the order of their gathers

  // What each reduction takes by itself, from steps without overlap. There they follow each other, so each goes from
  // the end of the one before to its own, on the rank where it ends last; ranks may leave one at different times, which
  // the least of their times would hide. Only the first waits for late ranks: of that the least counts.
  std::vector<double> alone_ms() const;
};

// Of each bucket, and of each gather: on the wire.
struct CommBytes {
  std::vector<std::int64_t> buckets, gathers;
  std::vector<bool> final_at_end = {};  // of buckets, as comm::Bucket says
  std::int64_t split_rows = 0;          // of all ranks, which each receives; 0: no table is split
  static CommBytes of(const Trainer& trainer);
  std::int64_t reduced() const;
  std::int64_t at_end() const;  // of what is final only when backward ends, split rows included
};

// What of a step is final only when backward ends: "bucket 7, 0.125 of 3.2 MiB; token rows of all ranks, 0.5 MiB".
// Empty: nothing.
std::string describe_at_end(const Trainer& trainer);

// `ranks`: of each rank its steps. REQUIRES: as many of every rank, at least one; each with a bucket for each size.
CommTimeline comm_timeline(std::span<const std::vector<StepTimeline>> ranks, const CommBytes& bytes);

}  // namespace strake::launch
