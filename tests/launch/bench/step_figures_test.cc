#include "launch/bench/step_figures.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace strake::launch {
namespace {

// Two repeats of three steps. All numbers are exact in binary.
StepJob step_job() {
  return {.warmup = 2,
          .steps = 3,
          .repeats = 2,
          .tokens_per_step = 1000,
          .flops_per_token = 1e6,
          .peak_flops = 1e9,
          .peak_name = "a rate",
          .comm_bytes = {.buckets = {1024, 2048, 1024}, .gathers = {512}, .final_at_end = {false, false, true}}};
}

RankStep step(double wall_ms) {
  RankStep out{.wall_ms = wall_ms, .comm_busy_ms = wall_ms / 4, .exposed_at_end_ms = wall_ms / 32};
  out.class_ms[static_cast<std::size_t>(StepClass::kForward)] = wall_ms / 4;
  out.class_ms[static_cast<std::size_t>(StepClass::kBackward)] = wall_ms / 2;
  out.class_ms[static_cast<std::size_t>(StepClass::kExposedComm)] = wall_ms / 16;
  return out;
}

// Bucket b is ready after (b + 2) and reduced from (b + 4) to (b + 5) sixteenths of the step.
StepTimeline timeline(double wall_ms) {
  StepTimeline out{.backward_begin_ms = wall_ms / 4,
                   .backward_end_ms = wall_ms * 3 / 4,
                   .buckets = {},
                   .split_rows = {},
                   .gathers = {}};
  for (const double b : {0, 1, 2}) {
    out.buckets.push_back(
        {.ready_ms = wall_ms * (b + 2) / 16, .begin_ms = wall_ms * (b + 4) / 16, .end_ms = wall_ms * (b + 5) / 16});
  }
  return out;
}

RankMeasurement measurement(int rank, const std::vector<double>& walls_ms) {
  RankMeasurement out;
  out.rank = rank;
  out.host = "left";
  out.device = "cpu";
  for (const double wall_ms : walls_ms) {
    out.steps.push_back(step(wall_ms));
    out.timelines.push_back(timeline(wall_ms));
  }
  out.device_memory_bytes = 12345;
  out.memory = {.rows = {{"weights", MemoryKind::kDevice, 12345}}, .driver_bytes = 12400};
  return out;
}

GpuLoad load(double power_w) {
  GpuLoad out;
  out.samples = 8;
  out.seconds = 0.75;
  out.mean_power_w = power_w;
  out.mean_sm_clock_mhz = 1700.5;
  out.least_sm_clock_mhz = 1600;
  out.highest_temperature_c = 61;
  out.memory_used_bytes = std::size_t{1} << 36;
  out.limits = {{ClockLimit::kPowerCap, 0.25}};
  return out;
}

// Means over ranks: 2 4 8 | 4 8 16.
std::vector<RankMeasurement> two_ranks() {
  return {measurement(0, {1, 3, 7, 3, 7, 15}), measurement(1, {3, 5, 9, 5, 9, 17})};
}

TEST(StepFigures, MedianOfRepeatsOfMeansOverRanks) {
  const StepFigures figures = figures_of(step_job(), two_ranks());
  EXPECT_EQ(figures.repeats_ms, (std::vector<double>{4, 8}));
  EXPECT_EQ(figures.median_ms, 6);
  EXPECT_EQ(figures.step_ms.low, 2);
  EXPECT_EQ(figures.step_ms.high, 16);
  EXPECT_EQ(figures.step_ms.mean, 7);
  EXPECT_EQ(figures.step_ms.samples, 6u);
  EXPECT_EQ(figures.tokens_per_s, 1000 / 6e-3);
  EXPECT_EQ(figures.mfu, figures.tokens_per_s * 1e6 / 2e9);
  // Classes: medians over all steps (of 2 4 4 8 8 16: 6).
  EXPECT_EQ(figures.of(StepClass::kForward), 1.5);
  EXPECT_EQ(figures.of(StepClass::kBackward), 3);
  EXPECT_EQ(figures.of(StepClass::kOptimizer), 0);
  EXPECT_EQ(figures.comm_busy_ms, 1.5);
  EXPECT_EQ(figures.comm_hidden_share, 0.75);
  EXPECT_EQ(figures.hosts, 1);
}

TEST(StepFigures, OneSlowStepMovesNoMedian) {
  auto ranks = two_ranks();
  for (RankMeasurement& rank : ranks) rank.steps[5] = step(1e6);
  const StepFigures figures = figures_of(step_job(), ranks);
  EXPECT_EQ(figures.median_ms, 6);
  EXPECT_EQ(figures.step_ms.high, 1e6);
}

TEST(StepFigures, ATimelineIsOfTheRankThatComesLast) {
  auto ranks = two_ranks();  // the later one: 3 5 9 5 9 17, median 7; the earlier one: 1 3 7 3 7 15, median 5
  const CommTimeline timeline = figures_of(step_job(), ranks).timeline;
  EXPECT_EQ(timeline.backward_begin_ms, 7.0 / 4);
  EXPECT_EQ(timeline.backward_end_ms, 7.0 * 3 / 4);
  ASSERT_EQ(timeline.buckets.size(), 3u);
  EXPECT_EQ(timeline.buckets[1].bytes, 2048);
  EXPECT_EQ(timeline.buckets[1].ready_ms, 7.0 * 3 / 16);
  EXPECT_EQ(timeline.buckets[1].begin_ms, 7.0 * 5 / 16);
  EXPECT_EQ(timeline.buckets[1].end_ms, 7.0 * 6 / 16);
  EXPECT_EQ(timeline.buckets[1].transfer_ms, 5.0 / 16) << "who came last waits for nobody";
  EXPECT_EQ(timeline.alone_ms(), (std::vector<double>{5.0 / 16, 7.0 / 16, 7.0 / 16}));
}

TEST(StepFigures, RowsOfASplitTableAreExposedByStructure) {
  StepJob split = step_job();
  split.comm_bytes.split_rows = 640;
  auto ranks = two_ranks();
  for (RankMeasurement& rank : ranks) {
    for (std::size_t i = 0; i < rank.timelines.size(); ++i) {  // backward ends at twelve sixteenths
      const double wall_ms = rank.steps[i].wall_ms;
      rank.timelines[i].split_rows = {
          .ready_ms = wall_ms * 12 / 16, .begin_ms = wall_ms * 13 / 16, .end_ms = wall_ms * 14 / 16};
    }
    rank = RankMeasurement::from_text(rank.to_text());
  }
  const StepFigures figures = figures_of(split, ranks);
  ASSERT_EQ(figures.timeline.buckets.size(), 3u);
  ASSERT_TRUE(figures.timeline.split_rows.has_value());
  EXPECT_EQ(figures.timeline.split_rows->bytes, 640);
  EXPECT_EQ(figures.timeline.split_rows->final_at_end, true);
  EXPECT_EQ(figures.timeline.split_rows->end_ms, 7.0 * 14 / 16);
  EXPECT_EQ(figures.timeline.split_rows->exposed_ms, 7.0 * 2 / 16) << "from the end of backward";
  const auto json = to_json(figures);
  EXPECT_EQ(json["comm"]["bytes_at_end"], 1024 + 640);
  EXPECT_EQ(json["comm"]["bytes"], 4096) << "of what is summed";
  EXPECT_EQ(json["comm"]["timeline"]["split_rows"]["bytes"], 640);
  EXPECT_TRUE(to_json(figures_of(step_job(), two_ranks()))["comm"]["timeline"]["split_rows"].is_null());
}

TEST(StepFigures, GathersAreOfTheStepsThatHaveThem) {
  auto ranks = two_ranks();
  for (RankMeasurement& rank : ranks) {
    for (std::size_t i = 1; i < rank.timelines.size(); ++i) {  // the first step of a run has none
      const double wall_ms = rank.steps[i].wall_ms;
      rank.timelines[i].gathers = {
          {.ready_ms = -wall_ms, .begin_ms = -wall_ms / 2, .end_ms = wall_ms / 2, .needed_ms = wall_ms / 4}};
    }
  }
  const CommTimeline timeline = figures_of(step_job(), ranks).timeline;
  ASSERT_EQ(timeline.gathers.size(), 1u);
  EXPECT_EQ(timeline.gathers[0].bytes, 512);
  EXPECT_EQ(timeline.gathers[0].ready_ms, -7) << "of 3 7 3 7 15, the rank that comes last";
  EXPECT_EQ(timeline.gathers[0].end_ms, 9.0 / 2) << "of 5 9 5 9 17";
  EXPECT_EQ(timeline.gathers[0].transfer_ms, 7);
  EXPECT_EQ(timeline.gathers[0].needed_ms, 9.0 / 4);
}

TEST(StepFigures, MoreExposedThanBusyIsNothingHidden) {
  auto ranks = two_ranks();
  for (RankMeasurement& rank : ranks) {
    for (RankStep& each : rank.steps) each.class_ms[static_cast<std::size_t>(StepClass::kExposedComm)] = 100;
  }
  EXPECT_EQ(figures_of(step_job(), ranks).comm_hidden_share, 0);
}

TEST(StepFigures, ARankAloneHidesNothingAndAnUnknownRateHasNoMfu) {
  StepJob unknown = step_job();
  unknown.peak_flops = 0;
  const StepFigures figures = figures_of(unknown, {measurement(0, {2, 4, 8, 4, 8, 16})});
  EXPECT_FALSE(figures.comm_hidden_share.has_value());
  EXPECT_FALSE(figures.mfu.has_value());
  const auto json = to_json(figures);
  EXPECT_TRUE(json["comm"]["hidden_share"].is_null());
  EXPECT_TRUE(json["mfu"].is_null());
  EXPECT_TRUE(json["peak_flops_per_rank"].is_null());
}

TEST(StepFigures, PowerAddsUpOverGpusIfAllOfThemTell) {
  auto ranks = two_ranks();
  ranks[0].gpu = load(300);
  ranks[1].gpu = load(200);
  const StepFigures figures = figures_of(step_job(), ranks);
  EXPECT_EQ(figures.power_w, 500);
  EXPECT_EQ(figures.energy_per_token_j, 500 / figures.tokens_per_s);
  EXPECT_TRUE(figures.throttled);
  EXPECT_NE(table(figures).find("throttled: power cap in 25 % of 8 samples"), std::string::npos) << table(figures);

  ranks[1].gpu->mean_power_w.reset();
  EXPECT_FALSE(figures_of(step_job(), ranks).power_w.has_value());
  ranks[1].gpu.reset();
  ranks[0].gpu->limits.clear();
  const StepFigures half = figures_of(step_job(), ranks);
  EXPECT_FALSE(half.energy_per_token_j.has_value());
  EXPECT_FALSE(half.throttled);
  EXPECT_EQ(table(half).find("throttled"), std::string::npos) << table(half);
}

TEST(StepFigures, CountsHosts) {
  auto ranks = two_ranks();
  ranks[1].host = "right";
  EXPECT_EQ(figures_of(step_job(), ranks).hosts, 2);
}

TEST(StepFigures, HasTheDocumentedFields) {
  auto ranks = two_ranks();
  ranks[0].gpu = load(300);
  const auto json = to_json(figures_of(step_job(), ranks));
  for (const char* key : {"warmup",
                          "steps",
                          "repeats",
                          "stub_comm",
                          "tokens_per_step",
                          "step_ms",
                          "tokens_per_s",
                          "tokens_per_s_per_rank",
                          "mfu",
                          "mfu_counts",
                          "mfu_of",
                          "model_flops_per_token",
                          "peak_flops_per_rank",
                          "breakdown_ms",
                          "comm",
                          "power_w",
                          "energy_per_token_j",
                          "throttled",
                          "hosts",
                          "ranks"}) {
    EXPECT_TRUE(json.contains(key)) << key;
  }
  EXPECT_EQ(json.size(), 20u);
  EXPECT_EQ(json["tokens_per_s_per_rank"].get<double>() * 2, json["tokens_per_s"].get<double>());
  EXPECT_EQ(json["breakdown_ms"].size(), kStepClasses);
  EXPECT_EQ(json["comm"]["buckets"], 3);
  EXPECT_EQ(json["comm"]["bytes"], 4096);
  EXPECT_EQ(json["comm"]["timeline"]["backward_end_ms"], 5.25);
  ASSERT_EQ(json["comm"]["timeline"]["buckets"].size(), 3u);
  EXPECT_EQ(json["comm"]["timeline"]["buckets"][2], (nlohmann::ordered_json{{"bytes", 1024},
                                                                            {"final_at_end", true},
                                                                            {"ready_ms", 1.75},
                                                                            {"begin_ms", 2.625},
                                                                            {"end_ms", 3.0625},
                                                                            {"transfer_ms", 0.3125},
                                                                            {"exposed_ms", 0.0}}));
  EXPECT_EQ(json["comm"]["timeline"]["buckets"][1]["final_at_end"], false);
  EXPECT_EQ(json["comm"]["bytes_at_end"], 1024);
  EXPECT_EQ(json["comm"]["exposed_at_end_ms"], 6.0 / 32);
  ASSERT_EQ(json["ranks"].size(), 2u);
  const auto& first = json["ranks"][0];
  EXPECT_EQ(first["rank"], 0);
  EXPECT_EQ(first["step_ms"], 5.0);  // of 1 3 3 7 7 15
  EXPECT_EQ(first["device_memory_bytes"], 12345);
  EXPECT_EQ(first["memory"]["parts"][0]["bytes"], 12345);
  EXPECT_EQ(first["memory"]["driver_bytes"], 12400);
  EXPECT_EQ(first["gpu"]["power_w"], 300.0);
  EXPECT_EQ(first["gpu"]["limits"]["power cap"], 0.25);
  EXPECT_EQ(first["gpu"]["throttled"], true);
  EXPECT_TRUE(json["ranks"][1]["gpu"].is_null());
  EXPECT_TRUE(json["power_w"].is_null());
}

TEST(RankMeasurement, TravelsAsText) {
  RankMeasurement sent = measurement(3, {1.0 / 3, 2e-300, 7});
  sent.device = "cpu \xff";  // a name may be any bytes
  sent.timelines[1].gathers = {{.ready_ms = -1.0 / 3, .begin_ms = 2, .end_ms = 3, .needed_ms = 1.0 / 7}};
  sent.gpu = load(1.0 / 7);
  sent.gpu->highest_temperature_c.reset();
  const RankMeasurement come = RankMeasurement::from_text(sent.to_text());
  EXPECT_EQ(come.rank, 3);
  EXPECT_EQ(come.host, "left");
  ASSERT_EQ(come.steps.size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(come.steps[i].wall_ms, sent.steps[i].wall_ms);
    EXPECT_EQ(come.steps[i].class_ms, sent.steps[i].class_ms);
    EXPECT_EQ(come.steps[i].comm_busy_ms, sent.steps[i].comm_busy_ms);
  }
  ASSERT_EQ(come.timelines.size(), 3u);
  EXPECT_EQ(come.timelines[0].backward_end_ms, sent.timelines[0].backward_end_ms);
  ASSERT_EQ(come.timelines[0].buckets.size(), 3u);
  EXPECT_EQ(come.timelines[0].buckets[2].ready_ms, sent.timelines[0].buckets[2].ready_ms);
  EXPECT_EQ(come.timelines[0].buckets[2].begin_ms, sent.timelines[0].buckets[2].begin_ms);
  EXPECT_EQ(come.timelines[0].buckets[2].end_ms, sent.timelines[0].buckets[2].end_ms);
  EXPECT_TRUE(come.timelines[0].gathers.empty());
  ASSERT_EQ(come.timelines[1].gathers.size(), 1u);
  EXPECT_EQ(come.timelines[1].gathers[0].ready_ms, -1.0 / 3);
  EXPECT_EQ(come.timelines[1].gathers[0].needed_ms, 1.0 / 7);
  EXPECT_EQ(come.device_memory_bytes, 12345u);
  EXPECT_EQ(come.memory.rows, sent.memory.rows);
  EXPECT_EQ(come.memory.driver_bytes, 12400u);
  ASSERT_TRUE(come.gpu.has_value());
  EXPECT_EQ(come.gpu->mean_power_w, 1.0 / 7);
  EXPECT_FALSE(come.gpu->highest_temperature_c.has_value());
  EXPECT_EQ(come.gpu->memory_used_bytes, std::size_t{1} << 36);
  EXPECT_EQ(come.gpu->limits, sent.gpu->limits);
  EXPECT_FALSE(RankMeasurement::from_text(measurement(0, {1}).to_text()).gpu.has_value());
}

TEST(StepFiguresDeathTest, EveryRankHasEveryStep) {
  auto ranks = two_ranks();
  ranks[1].steps.pop_back();
  EXPECT_DEATH(figures_of(step_job(), ranks), "rank 1 measured 5 of 6 steps");
}

TEST(StepFigures, SayThatNothingTravelled) {
  StepJob stubbed = step_job();
  stubbed.stub_comm = true;
  const StepFigures figures = figures_of(stubbed, two_ranks());
  EXPECT_EQ(figures.comm_hidden_share, std::nullopt) << "nothing was there to be hidden";
  EXPECT_EQ(to_json(figures).at("stub_comm"), true);
  EXPECT_NE(table(figures).find("** stubbed **"), std::string::npos) << table(figures);

  const StepFigures real = figures_of(step_job(), two_ranks());
  EXPECT_EQ(to_json(real).at("stub_comm"), false);
  EXPECT_EQ(to_json(real).at("comm").at("exposed_ms"), to_json(real).at("breakdown_ms").at("exposed_comm"));
  EXPECT_EQ(table(real).find("** stubbed **"), std::string::npos) << table(real);
}

}  // namespace
}  // namespace strake::launch
