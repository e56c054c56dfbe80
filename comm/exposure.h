// Exposure: how much of the reduction of gradients backward cannot hide, predicted from measurements, and the bucket
// size that leaves the least.
//
// A bucket's reduction begins when its last gradient is final and the bucket before it is reduced. While backward
// computes it takes longer than alone, and so does backward: the two share cores or multiprocessors. What goes on
// behind the end of backward is exposed. So small buckets pay for many starts, large ones begin late and leave the last
// of them behind backward. No prediction can be lower than what the last bucket takes whose gradients are final only at
// the end.
//
// Threads: values, pure functions: the same on every rank.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "comm/bucket_plan.h"

namespace strake::comm {

struct TimedReduction {
  std::int64_t bytes;
  double ms;
};

// What reductions take by their size. No one line: messages of different sizes travel by different protocols, and a
// link may let the first bytes behind a pause pass faster.
struct ReductionCost {
  std::vector<TimedReduction> by_size;  // rising sizes; not empty

  // Between two sizes in proportion; less than the smallest takes as long as that, more than the largest as much longer
  // as it is larger.
  double of(std::int64_t bytes) const;
};

struct ReductionCosts {
  ReductionCost alone;   // with nothing beside it
  ReductionCost beside;  // while backward computes
};

// Of each size the mean: what had to wait counts as much as what had not. REQUIRES: not empty; all bytes and times
// above zero.
ReductionCost cost_of(std::span<const TimedReduction> measured);

// Of a step that communicates nothing meanwhile, from any one origin.
struct BackwardTimes {
  std::vector<double> final_ms;  // when each parameter's gradient is final
  double begin_ms = 0, end_ms = 0;
  double dilation = 1;  // backward beside reductions takes so many times as long
};

// REQUIRES: a time for every parameter of the plan.
double exposed_ms(const BucketPlan& plan, const BackwardTimes& backward, const ReductionCosts& costs);

struct BucketSize {
  std::int64_t bytes;
  double exposed_ms;  // as predicted
};

// Of sizes from 32 KiB to that of one bucket, by factors of the square root of two, the one with the least exposed
// time; of those within `indifferent_ms` of it the largest, since every reduction costs the ranks something. REQUIRES:
// a layout that is not empty.
BucketSize least_exposed(const ParamLayout& layout, DType wire, const BackwardTimes& backward,
                         const ReductionCosts& costs, double indifferent_ms);

// What is taken where nothing may be measured: a sixteenth of all gradients, at least 64 KiB and at most 25 MiB.
std::int64_t bucket_bytes_by_rule(const ParamLayout& layout, DType wire);

}  // namespace strake::comm
