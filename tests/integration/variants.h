// Runs in the variants that must not change a bit of their results (launch/verify/variant.h), on the devices that a
// test makes.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "launch/config.h"
#include "launch/verify/variant.h"
#include "launch/verify/variant_device.h"
#include "runtime/device/order_checker.h"
#include "tests/integration/small_job.h"
#include "tests/support/watchdog.h"

namespace strake::test {

using launch::Variant;
using launch::VariantDevice;
using launch::with;

inline constexpr double kOneBucketEach = launch::kBucketEachMib;
inline constexpr double kSomeBuckets = 0.008;  // MiB
inline constexpr double kOneBucket =
    launch::kOneBucketMib;  // for all but the embeddings, which share none with the rest

// `some_buckets`: MiB that cut the model's gradients into more than six.
inline std::vector<Variant> variants(double some_buckets = kSomeBuckets) {
  return launch::schedules(some_buckets, models::Shard::kNone);
}

// What ranks keep a part of makes no difference either, where sums are in the order of ranks.
inline std::vector<Variant> sharded_variants(double some_buckets = kSomeBuckets) {
  return launch::schedules(some_buckets, models::Shard::kOptimizer);
}

// Called on each rank's thread; the device outlives the rank's run only.
using MakeDevice = std::function<std::unique_ptr<Device>(int rank)>;

struct JobOutcome {
  std::vector<RankOutcome> ranks;
  std::size_t buckets = 0;

  std::vector<double> losses() const {
    std::vector<double> losses;
    for (const launch::StepSummary& step : ranks.front().steps) losses.push_back(step.loss);
    return losses;
  }
};

inline constexpr std::uint64_t kDelaySeed = 41;

// All ranks under the order checker: any report is a failure.
inline JobOutcome run_variant(
    const launch::Config& config, int ranks, const Variant& variant,
    const MakeDevice& make_device = [](int) { return make_cpu_device(); }) {
  SCOPED_TRACE(variant.name);
  JobOutcome run;
  std::mutex mutex;
  const Watchdog watchdog("ranks as threads: " + variant.name);
  run.ranks = run_threads(with(config, variant), ranks, [&](int rank, const RunRank& run_rank) {
    const auto base = make_device(rank);
    VariantDevice devices(*base, variant, rank, kDelaySeed);
    RankSetup setup{.device = &devices.device()};
    setup.hooks.before_first_step = [&](launch::Trainer& trainer) {
      if (rank == 0) run.buckets = trainer.buckets().buckets.size();
    };
    run_rank(setup);
    const std::lock_guard lock(mutex);
    EXPECT_GT(devices.checker().operations_checked(), 0);
    for (const OrderChecker::Report& report : devices.checker().reports()) {
      ADD_FAILURE() << "rank " << rank << ": " << report.describe();
    }
  });
  return run;
}

inline void expect_equal_bits(const JobOutcome& run, const JobOutcome& expected, std::int64_t steps) {
  for (std::size_t rank = 0; rank < run.ranks.size(); ++rank) {
    SCOPED_TRACE(testing::Message() << "rank " << rank);
    expect_equal_bits(run.ranks[rank], expected.ranks.front(), steps);
  }
}

// `config` cut behind step `cut` by train.stop_at and resumed, as `rest` says, in the same run folder, ends as `uncut`:
// equal bits of every later loss and norm, and of the weights. `make_device` is called anew for each attempt.
inline void expect_resumes_as(const JobOutcome& uncut, launch::Config config, int ranks, std::int64_t cut,
                              const Variant& variant, const Variant& rest, const MakeDevice& make_device) {
  SCOPED_TRACE(testing::Message() << "cut behind step " << cut << ", then " << rest.name);
  config.train.stop_at = cut;
  const JobOutcome first = run_variant(config, ranks, variant, make_device);
  ASSERT_EQ(first.ranks.front().result.steps_done, cut);
  config.train.stop_at = 0;
  config.checkpoint.resume = launch::Resume::kMust;
  const JobOutcome second = run_variant(config, ranks, rest, make_device);
  ASSERT_EQ(second.ranks.front().result.first_step, cut);
  for (std::size_t rank = 0; rank < second.ranks.size(); ++rank) {
    // The whole run, put together from both attempts.
    RankOutcome joined = second.ranks[rank];
    const auto& before = first.ranks[rank].steps;
    joined.steps.insert(joined.steps.begin(), before.begin(), before.end());
    expect_equal_bits(joined, uncut.ranks.front(), config.train.steps);
  }
}

}  // namespace strake::test
