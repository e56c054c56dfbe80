// Behind which steps a run keeps a checkpoint.
#include "launch/train/checkpoint_policy.h"

#include <gtest/gtest.h>

#include <vector>

namespace strake::launch {
namespace {

using Clock = CheckpointPolicy::Clock;
using std::chrono::minutes;

Config run_of(std::int64_t steps) {
  Config config;
  config.train.steps = steps;
  return config;
}

std::vector<std::int64_t> wanted(const Config& config) {
  CheckpointPolicy policy(config, std::nullopt, Clock::now());
  std::vector<std::int64_t> steps;
  for (std::int64_t step = 1; step <= last_step(config); ++step) {
    if (policy.wanted(step, false)) steps.push_back(step);
  }
  return steps;
}

using Steps = std::vector<std::int64_t>;

TEST(CheckpointPolicy, EverySoManyStepsAndAtTheEnd) {
  Config config = run_of(10);
  config.checkpoint.every = 4;
  EXPECT_EQ(wanted(config), (Steps{4, 8, 10}));
  config.checkpoint.at_end = false;
  EXPECT_EQ(wanted(config), (Steps{4, 8}));
  config.checkpoint.every = 0;
  EXPECT_EQ(wanted(config), Steps());
}

// Who cuts a run short wants to go on from there.
TEST(CheckpointPolicy, WhereARunIsCutShortOrStopped) {
  Config config = run_of(10);
  config.checkpoint.every = 0;
  config.checkpoint.at_end = false;
  config.train.stop_at = 7;
  EXPECT_EQ(wanted(config), (Steps{7}));
  EXPECT_TRUE(CheckpointPolicy(config, std::nullopt, Clock::now()).wanted(3, true));
}

TEST(CheckpointPolicy, ByTimeOnceAllRanksKnow) {
  Config config = run_of(100);
  config.checkpoint.every_minutes = 5;
  const Clock::time_point begin = Clock::now();
  CheckpointPolicy policy(config, std::nullopt, begin - minutes(60));
  policy.begin(begin);
  EXPECT_FALSE(policy.due(begin + minutes(4)));
  EXPECT_TRUE(policy.due(begin + minutes(5)));
  EXPECT_FALSE(policy.wanted(20, false)) << "the other ranks do not know yet";
  policy.all_know();
  EXPECT_TRUE(policy.wanted(21, false));
  EXPECT_FALSE(policy.due(begin + minutes(6))) << "it is told once";
  policy.begun(begin + minutes(6));
  EXPECT_FALSE(policy.wanted(22, false));
  EXPECT_FALSE(policy.due(begin + minutes(10)));
  EXPECT_TRUE(policy.due(begin + minutes(11)));
  EXPECT_EQ(policy.newest(), std::nullopt) << "not durable yet";
  policy.durable(21);
  EXPECT_EQ(policy.newest(), 21);
}

TEST(CheckpointPolicy, StepsTakeThePlaceOfTime) {
  Config config = run_of(100);
  config.checkpoint.every = 50;
  const CheckpointPolicy policy(config, 10, Clock::now());
  EXPECT_FALSE(policy.due(Clock::now() + minutes(1000)));
  EXPECT_FALSE(policy.interval().has_value());
  EXPECT_EQ(policy.newest(), 10);
}

TEST(CheckpointPolicy, SaysWhatIsToCome) {
  const Clock::time_point now = Clock::now();
  Config config = run_of(10);
  config.checkpoint.every = 4;
  const CheckpointPolicy by_steps(config, std::nullopt, now);
  EXPECT_EQ(by_steps.next(3, now).step, 4);
  EXPECT_EQ(by_steps.next(4, now).step, 8);
  EXPECT_EQ(by_steps.next(8, now).step, 10) << "that of the end";
  EXPECT_EQ(by_steps.next(10, now).step, std::nullopt);
  EXPECT_EQ(by_steps.next(3, now).in, std::nullopt);
  config.checkpoint.at_end = false;
  EXPECT_EQ(CheckpointPolicy(config, std::nullopt, now).next(8, now).step, std::nullopt);

  config.checkpoint.every.reset();
  config.checkpoint.every_minutes = 5;
  const CheckpointPolicy by_time(config, std::nullopt, now);
  EXPECT_EQ(by_time.next(3, now + minutes(2)).in, Seconds(180));
  EXPECT_EQ(by_time.next(3, now).step, std::nullopt);
}

}  // namespace
}  // namespace strake::launch
