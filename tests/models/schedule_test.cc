#include "models/schedule.h"

#include <gtest/gtest.h>

namespace strake::test {
namespace {

using models::CosineSchedule;

TEST(CosineScheduleTest, WarmsUpInEqualSteps) {
  const CosineSchedule schedule{.peak = 8, .floor = 1, .warmup_steps = 4, .total_steps = 104};
  EXPECT_EQ(schedule.at(0), 2);
  EXPECT_EQ(schedule.at(1), 4);
  EXPECT_EQ(schedule.at(2), 6);
  EXPECT_EQ(schedule.at(3), 8);
  EXPECT_EQ(schedule.at(4), 8);  // the cosine starts at the peak
}

TEST(CosineScheduleTest, FallsByHalfACosine) {
  const CosineSchedule schedule{.peak = 9, .floor = 1, .warmup_steps = 4, .total_steps = 104};
  EXPECT_NEAR(schedule.at(4 + 50), 5, 1e-12);                         // half way: the mean of peak and floor
  EXPECT_NEAR(schedule.at(4 + 25) + schedule.at(4 + 75), 10, 1e-12);  // symmetric around it
  EXPECT_EQ(schedule.at(104), 1);
  EXPECT_EQ(schedule.at(1'000'000), 1);
  for (std::int64_t step = 4; step < 104; ++step) EXPECT_GT(schedule.at(step), schedule.at(step + 1)) << step;
}

TEST(CosineScheduleTest, NeedsNoWarmup) {
  const CosineSchedule schedule{.peak = 2, .floor = 2, .warmup_steps = 0, .total_steps = 10};
  for (std::int64_t step = 0; step < 12; ++step) EXPECT_EQ(schedule.at(step), 2) << step;
}

TEST(CosineScheduleTest, MayBeAllWarmup) {
  const CosineSchedule schedule{.peak = 10, .floor = 1, .warmup_steps = 5, .total_steps = 5};
  EXPECT_EQ(schedule.at(4), 10);
  EXPECT_EQ(schedule.at(5), 1);
}

}  // namespace
}  // namespace strake::test
