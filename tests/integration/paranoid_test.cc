// checkpoint.paranoid in whole runs: with a fence that is missing a run keeps a checkpoint that is none, and does not
// if it is asked to look. Order, not duration: the copies are held until the update that should have waited for them
// has run.

#include <gtest/gtest.h>

#include <string>
#include <thread>

#include "checkpoint/directory.h"
#include "launch/run/run_folder.h"
#include "launch/train/strategy_choice.h"
#include "runtime/base/error.h"
#include "tests/integration/held_device.h"
#include "tests/integration/small_job.h"
#include "tests/support/faulty_device.h"

namespace strake::test {
namespace {

using launch::CheckpointStrategy;

struct ParanoidRun {
  CheckpointStrategy strategy;
  models::Shard shard;
};
constexpr ParanoidRun kParanoidRuns[] = {{CheckpointStrategy::kLazy, models::Shard::kNone},
                                         {CheckpointStrategy::kPinned, models::Shard::kNone},
                                         {CheckpointStrategy::kDevice, models::Shard::kNone},
                                         {CheckpointStrategy::kLazy, models::Shard::kOptimizer},
                                         {CheckpointStrategy::kDevice, models::Shard::kOptimizer}};

constexpr std::int64_t kSavedStep = 2;

class ParanoidTraining : public testing::TestWithParam<ParanoidRun> {
 protected:
  struct Outcome {
    std::string errors[2];
    ExitCode codes[2] = {ExitCode::kDone, ExitCode::kDone};
    std::vector<std::string> bytes;  // of the ranks' files of the saved step; empty: there is none
  };

  // Two ranks; the copies of rank 0 are held. Without its fence until the next step's update has run.
  Outcome train(bool paranoid, bool fenced) {
    launch::Config config = job_.config(2, 1, 2, kSavedStep + 2);
    config.train.shard = GetParam().shard;
    config.checkpoint.every = kSavedStep;
    config.checkpoint.keep = 10;
    config.checkpoint.strategy = GetParam().strategy;
    config.checkpoint.paranoid = paranoid;
    Outcome outcome;
    run_threads(config, 2, [&](int rank, const RunRank& run) {
      const auto base = make_cpu_device();
      Gate copies;
      HeldDevice held(*base);
      FaultyDevice device(held);
      const Watch& steps = held.watch("loss to host", Phase::kOptimizer);  // behind each update
      std::thread opener;
      RankSetup setup{.device = &device};
      if (rank == 0) {
        if (!fenced) device.faults().wait_to_drop = "update waits for the snapshot";
        setup.hooks.before_first_step = [&](launch::Trainer& trainer) {
          const std::string first = "snapshot " + trainer.state_table().entries.front().name;
          held.watch(GetParam().strategy == CheckpointStrategy::kDevice ? first + " on the device" : first,
                     Phase::kCheckpoint, &copies);
        };
        opener = std::thread([&] {
          EXPECT_TRUE(wait_until([&] { return copies.reached(); }));
          if (fenced) {
            EXPECT_EQ(steps.ended.load(std::memory_order_relaxed), kSavedStep);
          } else {
            EXPECT_TRUE(wait_until([&] { return steps.ended.load(std::memory_order_relaxed) > kSavedStep; }));
          }
          copies.open();
        });
      }
      try {
        run(std::move(setup));
      } catch (const Error& error) {
        outcome.errors[rank] = error.what();
        outcome.codes[rank] = error.exit_code();
      }
      if (opener.joinable()) opener.join();
    });
    PosixFiles files;
    const auto folder = launch::checkpoint_folder(config.run.dir) / checkpoint::step_name(kSavedStep);
    if (files.exists(folder)) {
      for (const checkpoint::FileRecord& file : checkpoint::verify_checkpoint(files, folder).files)
        outcome.bytes.push_back(read_file(files, folder / file.name, 1 << 26));
    }
    return outcome;
  }

  SmallJob job_;
};
INSTANTIATE_TEST_SUITE_P(Runs, ParanoidTraining, testing::ValuesIn(kParanoidRuns), [](const auto& run) {
  return std::string(name_of(launch::planned_strategy(run.param.strategy))) +
         (run.param.shard == models::Shard::kNone ? "" : "_sharded");
});

TEST_P(ParanoidTraining, AMissingFenceEndsTheRunInsteadOfKeepingOtherBytes) {
  const Outcome clean = train(true, true);
  EXPECT_EQ(clean.errors[0] + clean.errors[1], "") << "with its fence a run that looks goes through";
  ASSERT_EQ(clean.bytes.size(), 2u);

  const Outcome trusting = train(false, false);
  EXPECT_EQ(trusting.errors[0] + trusting.errors[1], "");
  ASSERT_EQ(trusting.bytes.size(), 2u) << "whole, by all its checksums";
  EXPECT_TRUE(trusting.bytes[0] != clean.bytes[0]) << "the fence is not needed";
  EXPECT_TRUE(trusting.bytes[1] == clean.bytes[1]);

  const Outcome looking = train(true, false);
  for (const int rank : {0, 1}) {
    EXPECT_EQ(looking.codes[rank], ExitCode::kFailure);
    EXPECT_NE(looking.errors[rank].find("checkpoint of step 2"), std::string::npos) << looking.errors[rank];
    EXPECT_NE(looking.errors[rank].find("a wait is missing"), std::string::npos) << looking.errors[rank];
  }
  EXPECT_TRUE(looking.bytes.empty());
}

}  // namespace
}  // namespace strake::test
