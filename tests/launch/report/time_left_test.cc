#include "launch/report/time_left.h"

#include <gtest/gtest.h>

namespace strake::launch {
namespace {

using namespace std::chrono_literals;

double left(const TimeLeft& time_left, std::int64_t step) { return time_left.after(step).value().count(); }

TEST(TimeLeft, IsUnknownBeforeTheFirstStep) { EXPECT_EQ(TimeLeft({.last_step = 10}).after(0), std::nullopt); }

TEST(TimeLeft, IsTheStepsToCome) {
  TimeLeft time_left({.last_step = 110});
  time_left.add_step(2s);
  EXPECT_DOUBLE_EQ(left(time_left, 100), 20);
  EXPECT_DOUBLE_EQ(left(time_left, 110), 0);
}

TEST(TimeLeft, ForgetsTheFirstStepAndFollowsTheRecentOnes) {
  TimeLeft time_left({.last_step = 1000});
  time_left.add_step(60s);  // everything warms up
  for (int i = 0; i < 3; ++i) time_left.add_step(1s);
  EXPECT_DOUBLE_EQ(left(time_left, 990), 10);
  for (int i = 0; i < 200; ++i) time_left.add_step(3s);
  EXPECT_NEAR(left(time_left, 990), 30, 0.01);
}

TEST(TimeLeft, CountsEvaluationsAndCheckpointsAsTheyWereSoFar) {
  TimeLeft time_left({.last_step = 100,
                      .evaluates = true,
                      .eval_every = 30,
                      .checkpoint_every = 50,
                      .checkpoint_interval = {},
                      .checkpoint_at_end = true});
  time_left.add_step(1s);
  EXPECT_DOUBLE_EQ(left(time_left, 20), 80);  // none was seen
  time_left.add_evaluation(4s);
  time_left.add_evaluation(6s);
  time_left.add_checkpoint(7s);
  // Evaluations after 30, 60, 90 and 100; checkpoints after 50 and 100, which is the last one and regular.
  EXPECT_DOUBLE_EQ(left(time_left, 20), 80 + 4 * 5 + 2 * 7);
  EXPECT_DOUBLE_EQ(left(time_left, 30), 70 + 3 * 5 + 2 * 7);
  EXPECT_DOUBLE_EQ(left(time_left, 99), 1 + 5 + 7);
  EXPECT_DOUBLE_EQ(left(time_left, 100), 0);
}

TEST(TimeLeft, CountsCheckpointsByTime) {
  TimeLeft time_left({.last_step = 1000,
                      .evaluates = false,
                      .eval_every = 0,
                      .checkpoint_every = 0,
                      .checkpoint_interval = 60s,
                      .checkpoint_at_end = true});
  time_left.add_step(1s);
  time_left.add_checkpoint(3s);
  EXPECT_DOUBLE_EQ(left(time_left, 870), 130 + 2 * 3 + 3);
  EXPECT_DOUBLE_EQ(left(time_left, 970), 30 + 3);
}

}  // namespace
}  // namespace strake::launch
