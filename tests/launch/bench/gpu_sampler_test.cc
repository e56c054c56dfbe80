#include "launch/bench/gpu_sampler.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

namespace strake::launch {
namespace {

using std::chrono::milliseconds;

constexpr auto kCap = static_cast<std::uint32_t>(ClockLimit::kPowerCap);
constexpr auto kSet = static_cast<std::uint32_t>(ClockLimit::kApplicationClocks);

std::vector<TimedSample> at_every_half_second(const std::vector<GpuSample>& samples) {
  std::vector<TimedSample> out;
  for (const GpuSample& sample : samples) {
    out.push_back({std::chrono::steady_clock::time_point(milliseconds(500 * out.size())), sample});
  }
  return out;
}

TEST(GpuLoad, SumsUpWhatWasSampled) {
  const GpuLoad load = load_of(at_every_half_second({
      {.power_w = 100, .sm_clock_mhz = 1980, .temperature_c = 40, .memory_used_bytes = 5, .limits = 0},
      {.power_w = 600, .sm_clock_mhz = 1500, .temperature_c = 60, .memory_used_bytes = 9, .limits = kCap | kSet},
      {.power_w = 500, .sm_clock_mhz = 1740, .temperature_c = 55, .memory_used_bytes = 9, .limits = kCap},
      {.power_w = 400, .sm_clock_mhz = 1740, .temperature_c = 50, .memory_used_bytes = 7, .limits = 0},
  }));
  EXPECT_EQ(load.samples, 4);
  EXPECT_EQ(load.seconds, 1.5);
  EXPECT_EQ(load.mean_power_w, 400);
  EXPECT_EQ(load.mean_sm_clock_mhz, 1740);
  EXPECT_EQ(load.least_sm_clock_mhz, 1500);
  EXPECT_EQ(load.highest_temperature_c, 60);
  EXPECT_EQ(load.memory_used_bytes, 9u);
  ASSERT_EQ(load.limits.size(), 2u);
  EXPECT_EQ(load.limits[0], std::pair(ClockLimit::kApplicationClocks, 0.25));
  EXPECT_EQ(load.limits[1], std::pair(ClockLimit::kPowerCap, 0.5));
  EXPECT_TRUE(load.throttled());
}

TEST(GpuLoad, TakesPowerFromTheEnergyCounterWhereThereIsOne) {
  const GpuLoad load = load_of(at_every_half_second({
      {.power_w = 100, .energy_j = 1000},
      {.power_w = 100, .energy_j = 1500},
      {.power_w = 100, .energy_j = 1700},
  }));
  EXPECT_EQ(load.seconds, 1);
  EXPECT_EQ(load.mean_power_w, 700);
}

TEST(GpuLoad, WhatTheDriverDoesNotTellIsAbsent) {
  const GpuLoad load = load_of(at_every_half_second({{}, {.sm_clock_mhz = 1000}, {}}));
  EXPECT_EQ(load.samples, 3);
  EXPECT_FALSE(load.mean_power_w.has_value());
  EXPECT_EQ(load.mean_sm_clock_mhz, 1000) << "of the samples that have it";
  EXPECT_FALSE(load.highest_temperature_c.has_value());
  EXPECT_FALSE(load.memory_used_bytes.has_value());
  EXPECT_TRUE(load.limits.empty());
}

TEST(GpuLoad, ClocksThatAUserHasSetAreNoThrottling) {
  const GpuLoad load = load_of(at_every_half_second({{.limits = kSet}, {.limits = kSet}}));
  EXPECT_EQ(load.limits.size(), 1u);
  EXPECT_FALSE(load.throttled());
}

// Each reading is one watt more than the one before.
class CountingSensor final : public GpuSensor {
 public:
  explicit CountingSensor(std::atomic<int>& readings) : readings_(readings) {}
  GpuSample read() const override { return {.power_w = ++readings_}; }

 private:
  std::atomic<int>& readings_;
};

TEST(GpuSampler, ReadsFromStartToStopOnAThreadOfItsOwn) {
  std::atomic<int> readings = 0;
  GpuSampler sampler(std::make_unique<CountingSensor>(readings), milliseconds(1));
  EXPECT_EQ(readings, 0);
  for (int times = 1; times <= 2; ++times) {
    const int before = readings;
    sampler.start();
    while (readings < before + 3) std::this_thread::sleep_for(milliseconds(1));
    const int while_running = readings;
    const GpuLoad load = sampler.stop();
    const int after = readings;
    EXPECT_GT(after, while_running) << "the end is sampled too";
    EXPECT_EQ(load.samples, after - before) << "only what was read since start";
    EXPECT_EQ(load.mean_power_w, (before + 1 + after) / 2.0);
  }
}

TEST(GpuSampler, AShortMeasurementHasItsBeginAndItsEnd) {
  std::atomic<int> readings = 0;
  GpuSampler sampler(std::make_unique<CountingSensor>(readings), std::chrono::hours(1));
  sampler.start();
  EXPECT_EQ(sampler.stop().samples, 2);
}

TEST(GpuSampler, MayBeDroppedWhileItRuns) {
  std::atomic<int> readings = 0;
  {
    GpuSampler sampler(std::make_unique<CountingSensor>(readings), milliseconds(1));
    sampler.start();
  }
  EXPECT_GE(readings, 2);
}

}  // namespace
}  // namespace strake::launch
