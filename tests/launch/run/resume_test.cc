// What a resumed run says has changed.
#include "launch/run/resume.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace strake::launch {
namespace {

using Lines = std::vector<std::string>;

TEST(ChangesSince, NothingWhereNothingChanged) {
  const Config config;
  EXPECT_EQ(changes_since(config_to_json(config), config, 10, 160), Lines());
}

TEST(ChangesSince, NothingOfWeightsThatWereImportedAndOfWhatIsNoConfig) {
  for (const char* saved : {"", "{", "[]", "7"}) EXPECT_EQ(changes_since(saved, Config(), 10, 160), Lines()) << saved;
}

TEST(ChangesSince, EveryKeyWithBothValues) {
  Config before, now;
  now.checkpoint.keep = 9;
  now.run.dir = "elsewhere";
  EXPECT_EQ(changes_since(config_to_json(before), now, 10, 160),
            (Lines{"run.dir: \"runs/default\" -> \"elsewhere\"", "checkpoint.keep: 2 -> 9"}));
}

TEST(ChangesSince, WhatTheyDoNow) {
  Config before, now;
  before.optimizer.learning_rate = 1e-3;
  before.optimizer.warmup_steps = 100;
  before.train.global_batch = 16;
  now = before;
  now.optimizer.learning_rate = 2e-3;
  now.train.global_batch = 64;
  const Lines lines = changes_since(config_to_json(before), now, 49, 784);
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_EQ(lines[0], "train.global_batch: 16 -> 64");
  EXPECT_EQ(lines[1], "optimizer.learning_rate: 0.001 -> 0.002");
  EXPECT_EQ(lines[2], "learning rate of step 50: 0.0005 -> 0.001");
  EXPECT_EQ(lines[3], "samples go on at 784, 64 a step instead of 16");
}

TEST(ChangesSince, WhatHasNoEffectAnyMore) {
  Config before, now;
  now.train.init_from = "runs/a";
  EXPECT_EQ(changes_since(config_to_json(before), now, 10, 160),
            (Lines{"train.init_from: \"\" -> \"runs/a\", which a run that has begun does not read"}));
}

// Of an older program: keys that it did not have say nothing, keys that are gone neither.
TEST(ChangesSince, KeysOfAnotherVersion) {
  const std::string saved = R"({"train": {"steps": 500, "gone": 3}, "was": {"there": 1}})";
  Config now;
  now.train.steps = 1000;
  const Lines lines = changes_since(saved, now, 10, 160);
  ASSERT_GE(lines.size(), 1u);
  EXPECT_EQ(lines[0], "train.steps: 500 -> 1000");
}

TEST(ConfigFromJson, GivesBackWhatWasWritten) {
  Config config;
  config.train.steps = 77;
  config.checkpoint.every = 5;
  config.data.train = {"a b.bin", "c,d.bin"};
  config.train.dtype = ComputeType::kBF16;
  config.comm.bucket_mib = 0.25;
  config.comm.overlap = false;
  EXPECT_EQ(config_to_json(config_from_json(config_to_json(config))), config_to_json(config));
  config.checkpoint.every.reset();
  config.data.train = {"one.bin"};
  EXPECT_EQ(config_to_json(config_from_json(config_to_json(config))), config_to_json(config));
}

}  // namespace
}  // namespace strake::launch
