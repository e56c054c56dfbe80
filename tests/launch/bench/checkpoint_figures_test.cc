#include "launch/bench/checkpoint_figures.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace strake::launch {
namespace {

constexpr CheckpointBlocks kBlocks{.every = 30, .saves = 3};

// What a made-up run's saves cost: the call, the fence a step later, what steps lose besides, each in ms.
struct MadeUp {
  double call = 0, fence = 0, besides = 0, waited = 0, snapshot = 0, durable = 0;
  bool saves = true;
  double step = 100;
};

Metrics metrics_of(const MadeUp& made) {
  Metrics metrics;
  for (std::int64_t step = 1; step <= kBlocks.steps(); ++step) {
    double wall = made.step, checkpoint = 0;
    const std::int64_t since = step % kBlocks.every;
    const bool behind_first = step >= kBlocks.every;
    if (made.saves && behind_first && since == 0) {
      wall += made.waited + made.call;
      checkpoint = made.call;
      metrics.checkpoints.push_back({.step = step,
                                     .waited_ms = made.waited,
                                     .returned_ms = made.call + 2,  // the step before still ran
                                     .snapshot_ms = made.snapshot,
                                     .durable_ms = made.durable});
    }
    if (made.saves && behind_first && since == 1) {
      wall += made.fence;
      checkpoint = made.fence;
    }
    if (made.saves && behind_first && since == 2) wall += made.besides;
    StepMetrics line{.step = step};
    line.wall = std::chrono::nanoseconds(std::llround(wall * 1e6));
    line.durations[static_cast<std::size_t>(StepClass::kCheckpoint)] =
        std::chrono::nanoseconds(std::llround(checkpoint * 1e6));
    metrics.steps.push_back(line);
  }
  return metrics;
}

TEST(CheckpointBlocks, CountNeitherTheFirstSaveNorStepsThatHaveNone) {
  EXPECT_EQ(kBlocks.window(), 20);
  EXPECT_EQ(CheckpointBlocks{.every = 5}.window(), 4);
  std::vector<std::int64_t> counted;
  for (std::int64_t step = 0; step <= kBlocks.steps(); ++step) {
    if (kBlocks.counted(step)) counted.push_back(step);
  }
  EXPECT_EQ(counted, (std::vector<std::int64_t>{60, 90, 120}));
  EXPECT_GE(kBlocks.steps(), 120 + kBlocks.window() - 1) << "the last one's window is trained";
  EXPECT_LT(kBlocks.steps(), 150) << "and no save behind it";
}

TEST(SaveCosts, StallIsWhatTrainingWaitedForAndInterferenceTheRest) {
  const Metrics metrics =
      metrics_of({.call = 3, .fence = 20, .besides = 7, .waited = 11, .snapshot = 40, .durable = 500});
  EXPECT_DOUBLE_EQ(undisturbed_step_ms(kBlocks, metrics).value(), 100);
  const std::vector<SaveCost> costs = save_costs(kBlocks, metrics, 100);
  ASSERT_EQ(costs.size(), 3u);
  for (const SaveCost& cost : costs) {
    EXPECT_DOUBLE_EQ(cost.waited_ms, 11);
    EXPECT_DOUBLE_EQ(cost.call_ms, 3);
    EXPECT_DOUBLE_EQ(cost.returned_ms, 5);
    EXPECT_DOUBLE_EQ(cost.fence_ms, 20);
    EXPECT_DOUBLE_EQ(cost.stall_ms, 34);
    EXPECT_NEAR(cost.interference_ms, 7, 1e-9);
  }
  // Faster steps beside a save are told as they are.
  EXPECT_NEAR(save_costs(kBlocks, metrics_of({.besides = -4}), 100).front().interference_ms, -4, 1e-9);
}

TEST(SaveCosts, AreOfNothingInARunWithout) {
  const std::vector<SaveCost> costs = save_costs(kBlocks, metrics_of({.saves = false}), 100);
  ASSERT_EQ(costs.size(), 3u);
  EXPECT_EQ(costs.front().stall_ms, 0);
  EXPECT_NEAR(costs.front().interference_ms, 0, 1e-9);
}

// A save that was left out has no line, and costs nothing that counts.
TEST(SaveCosts, AreOfSavesThatWereMade) {
  Metrics metrics = metrics_of({.call = 3});
  std::erase_if(metrics.checkpoints, [](const CheckpointMetrics& save) { return save.step == 90; });
  EXPECT_EQ(save_costs(kBlocks, metrics, 100).size(), 2u);
}

// Steps beside what is still being written are no yardstick.
TEST(Undisturbed, IsNoStepBeforeWhatWasWrittenIsDurable) {
  Metrics metrics = metrics_of({.durable = 3800});
  for (StepMetrics& step : metrics.steps) {
    if (step.step > kBlocks.every && step.step % kBlocks.every < 26) step.wall = std::chrono::milliseconds(150);
  }
  EXPECT_DOUBLE_EQ(undisturbed_step_ms(kBlocks, metrics).value(), 100);
  EXPECT_FALSE(undisturbed_step_ms(kBlocks, metrics_of({.durable = 1e6})).has_value());
}

TEST(IntervalOf, IsStudentsT) {
  const Interval interval = interval_of(std::vector<double>{1, 2, 3, 4});
  EXPECT_DOUBLE_EQ(interval.mean, 2.5);
  EXPECT_NEAR(interval.half, 3.182446 * std::sqrt(5.0 / 3) / 2, 1e-5);  // t of three degrees of freedom
  EXPECT_TRUE(std::isinf(interval_of(std::vector<double>{1}).half));
}

// What the method's authors print, and the two limits.
TEST(Advise, IsYoungsInterval) {
  const CheckpointAdvice advice = advise(10, 10, 0, 60, 24 * 3600);
  EXPECT_NEAR(advice.interval_s, std::sqrt(2 * 10.0 * 24 * 3600), 1e-9);
  EXPECT_NEAR(advice.waste, 10 / advice.interval_s + (advice.interval_s / 2 + 70) / (24 * 3600), 1e-12);
  EXPECT_DOUBLE_EQ(advise(1e-6, 9, 0, 60, 3600).interval_s, 9) << "not more often than the disk takes them";
  EXPECT_DOUBLE_EQ(advise(-1, 9, 0, 60, 3600).interval_s, 9) << "less than nothing is nothing";
  EXPECT_GT(advise(1, 9, 5, 60, 3600).waste, advise(1, 9, 0, 60, 3600).waste) << "loading counts";
}

TEST(CheckpointFigures, RowsAreOfAllRepeats) {
  std::vector<CheckpointRun> runs;
  for (int repeat = 0; repeat < 2; ++repeat)
    runs.push_back({.strategy = "none", .folder = "/a", .repeat = repeat, .metrics = metrics_of({.saves = false})});
  for (int repeat = 0; repeat < 2; ++repeat) {
    runs.push_back(
        {.strategy = "lazy",
         .folder = "/a",
         .repeat = repeat,
         // The second repeat's disk is so slow that no step is undisturbed: that without is its yardstick.
         .metrics = metrics_of({.call = 1, .fence = repeat * 2.0, .snapshot = 100, .durable = repeat == 0 ? 600 : 1e6}),
         .bytes = 1'000'000'000,
         .cold_load_s = 2 + repeat,
         .warm_load_s = 1});
  }
  const CheckpointFigures figures = figures_of(
      {.blocks = kBlocks, .repeats = 2, .ranks = 2, .device = "a CPU", .mtbf_s = {3600}, .restart_s = 60}, runs);
  ASSERT_EQ(figures.rows.size(), 2u);
  EXPECT_EQ(figures.bytes, 1'000'000'000u);
  EXPECT_TRUE(figures.advice[0].empty());
  const CheckpointRow& row = figures.rows[1];
  EXPECT_EQ(row.strategy, "lazy");
  EXPECT_EQ(row.stall_ms.samples, 6u);
  EXPECT_DOUBLE_EQ(row.stall_ms.low, 1);
  EXPECT_DOUBLE_EQ(row.stall_ms.high, 3);
  EXPECT_DOUBLE_EQ(row.lost_ms.mean, 2);
  EXPECT_DOUBLE_EQ(row.step_ms, 100);
  EXPECT_DOUBLE_EQ(row.cold_load_s.value(), 2.5);
  ASSERT_EQ(figures.advice[1].size(), 1u);
  EXPECT_DOUBLE_EQ(figures.advice[1][0].mtbf_s, 3600);

  const nlohmann::ordered_json json = to_json(figures);
  EXPECT_EQ(json.at("rows").at(1).at("strategy"), "lazy");
  EXPECT_EQ(json.at("rows").at(0).at("load_cold_s"), nullptr);
  EXPECT_EQ(json.at("rows").at(1).at("advice").size(), 1u);
  const std::string text = table(figures);
  EXPECT_NE(text.find("lazy"), std::string::npos) << text;
  EXPECT_NE(text.find("60 min"), std::string::npos) << text;
  EXPECT_NE(text.back(), '\n');
}

// A disk so slow that each save was left out says so, and divides by nothing.
TEST(CheckpointFigures, ARowMayHaveNoSave) {
  Metrics none_made = metrics_of({.call = 1, .durable = 1e6});
  std::erase_if(none_made.checkpoints, [](const CheckpointMetrics& save) { return save.step > kBlocks.every; });
  const CheckpointFigures figures =
      figures_of({.blocks = kBlocks, .repeats = 1, .ranks = 1, .device = "a CPU", .mtbf_s = {60}, .restart_s = 0},
                 {{.strategy = "none", .folder = "", .metrics = metrics_of({.saves = false})},
                  {.strategy = "sync", .folder = "", .metrics = none_made}});
  EXPECT_TRUE(figures.advice[1].empty());
  EXPECT_NE(table(figures).find("every one was left out"), std::string::npos);
  EXPECT_FALSE(to_json(figures).dump().empty());
}

}  // namespace
}  // namespace strake::launch
