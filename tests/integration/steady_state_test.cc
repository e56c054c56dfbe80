// From the first step on a run takes nothing more from its device: no memory, no events, no marks, no streams.

#include <gtest/gtest.h>

#include <set>
#include <type_traits>

#include "tests/integration/small_job.h"
#include "tests/support/counting_device.h"

namespace strake::test {
namespace {

TEST(SteadyState, AStepTakesNothingFromTheDevice) {
  SmallJob job;
  launch::Config config = job.config(2, 2, 2, 8);
  config.comm.bucket_mib = 1e-6;
  config.checkpoint.every = 3;
  config.data.val = {job.val_tokens().string()};
  config.eval.every = 2;
  config.eval.batches = 4;
  run_threads(config, 2, [&](int, const RunRank& run) {
    const auto cpu = make_cpu_device();
    CountingDevice device(*cpu);
    std::set<CountingDevice::Taken> seen;
    RankSetup setup{.device = &device};
    setup.hooks.before_step = [&](std::int64_t) { seen.insert(device.taken()); };
    setup.hooks.on_report = [&](const launch::StepReport&) { seen.insert(device.taken()); };
    run(std::move(setup));
    ASSERT_EQ(seen.size(), 1u);
    EXPECT_EQ(seen.begin()->streams, 4);
    EXPECT_GT(seen.begin()->events, 0);
    EXPECT_GT(seen.begin()->marks, 0);
    EXPECT_GT(seen.begin()->bytes, 0u);
  });
}

// What a run hands back at its end has one size, and says how it went.
TEST(SteadyState, TheResultDoesNotGrowWithTheSteps) {
  static_assert(std::is_trivially_copyable_v<launch::TrainResult>);
  SmallJob job;
  launch::Config config = job.config(2, 1, 2, 9);
  config.data.val = {job.val_tokens().string()};
  config.eval.every = 2;
  const std::vector<RankOutcome> ranks = run_threads(config, 2, [](int, const RunRank& run) {
    const auto device = make_cpu_device();
    run({.device = device.get()});
  });
  for (const RankOutcome& rank : ranks) {
    ASSERT_EQ(rank.steps.size(), 9u);
    EXPECT_EQ(rank.result.first_loss, rank.steps.front().loss);
    EXPECT_EQ(rank.result.last_loss, rank.steps.back().loss);
    ASSERT_TRUE(rank.result.last_held_out.has_value() && rank.result.best_held_out.has_value());
    EXPECT_EQ(rank.result.last_held_out->step, 9);
    EXPECT_LE(rank.result.best_held_out->loss, rank.result.last_held_out->loss);
  }
}

}  // namespace
}  // namespace strake::test
