// Overlap is order, not speed: gradients are reduced while backward is held, and not with overlap off; input
// goes on while computation is held.

#include <gtest/gtest.h>

#include <array>

#include "launch/job/job_inputs.h"
#include "tests/integration/held_device.h"
#include "tests/integration/small_job.h"
#include "tests/integration/variants.h"
#include "tests/support/counting_source.h"
#include "tests/support/watchdog.h"

namespace strake::test {
namespace {

// Enqueues the first steps of a rank and waits for them to end. `enqueued` is called in between.
void run_steps(std::int64_t steps, const launch::Job& job, Device& device, comm::Communicator& communicator,
               data::TokenSource& source, const std::function<void()>& enqueued = {}) {
  const launch::TokenSources sources{.train = &source, .val = nullptr};
  const launch::StepPlan plan = launch::Trainer::plan(job, communicator, sources);
  launch::Trainer trainer(job, device, communicator, sources, &plan);
  trainer.allocate();
  trainer.initialize(1);
  trainer.seek(0);
  for (std::int64_t step = 0; step < steps; ++step) trainer.step(step);
  trainer.end();
  if (enqueued) enqueued();
  EXPECT_TRUE(wait_until([&] { return trainer.complete(steps - 1); }));
  device.check();
}

class OverlapOrder : public testing::Test {
 protected:
  static constexpr int kRanks = 2;

  struct Rank {
    Gate gate;  // before the streams that are held at it
    std::unique_ptr<Device> cpu = make_cpu_device();
    HeldDevice device{*cpu};
    // Backward goes from layer 1 to layer 0: this is the first operation of its second half.
    const Watch* second_half = &device.watch("h.0.mlp.proj", Phase::kBackward, &gate);
    const Watch* backward_end = &device.watch("embedding", Phase::kBackward);
    const Watch* first_bucket = &device.watch("bucket 0 all-reduce", Phase::kComm);
    const Watch* last_forward = &device.watch("cross entropy", Phase::kForward);
    std::atomic<bool> enqueued{false};
  };

  // Runs a step of two ranks, both held at the gate until `held` returns.
  void run(bool overlap, int accumulation, const std::function<void()>& held) {
    const Watchdog watchdog("a step of two ranks");
    launch::Config config = job_.config(kRanks, accumulation, 2, 1);
    config.comm.overlap = overlap;
    config.comm.bucket_mib = kSomeBuckets;
    config.optimizer.warmup_steps = 0;
    comm::ThreadsWorld world(kRanks);
    std::thread ranks([&] {
      run_ranks(world, [&](int rank) {
        Rank& mine = ranks_[static_cast<std::size_t>(rank)];
        const launch::JobInputs inputs = launch::JobInputs::open(config, rank, kRanks);
        const auto communicator = world.make_communicator(rank);
        run_steps(1, inputs.job, mine.device, *communicator, *inputs.train, [&] { mine.enqueued = true; });
      });
    });
    for (Rank& rank : ranks_) {
      EXPECT_TRUE(wait_until([&] { return rank.enqueued && rank.gate.reached(); }));
    }
    held();
    for (Rank& rank : ranks_) rank.gate.open();
    ranks.join();
  }

  SmallJob job_;
  std::array<Rank, kRanks> ranks_;
};

TEST_F(OverlapOrder, FirstBucketIsReducedWhileHalfOfBackwardIsHeld) {
  run(true, 1, [this] {
    for (Rank& rank : ranks_) {
      EXPECT_TRUE(wait_until([&] { return rank.first_bucket->ended == 1; }));
      EXPECT_EQ(rank.second_half->begun, 0);
      EXPECT_EQ(rank.backward_end->begun, 0);
    }
  });
  for (Rank& rank : ranks_) {
    EXPECT_LT(rank.first_bucket->last_end, rank.second_half->first_begin);
    EXPECT_LT(rank.second_half->first_begin, rank.backward_end->first_begin);
  }
}

TEST_F(OverlapOrder, WithoutOverlapReductionFollowsBackward) {
  run(false, 1, [this] {
    // Everything is enqueued and nothing else holds communication: were it to start early, it could now.
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    for (Rank& rank : ranks_) EXPECT_EQ(rank.first_bucket->begun, 0);
  });
  for (Rank& rank : ranks_) EXPECT_GT(rank.first_bucket->first_begin, rank.backward_end->last_end);
}

TEST_F(OverlapOrder, OnlyTheLastMicroBatchIsReduced) {
  // The gate holds the second half of the first backward of three.
  run(true, 3, [this] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    for (Rank& rank : ranks_) EXPECT_EQ(rank.first_bucket->begun, 0);
  });
  for (Rank& rank : ranks_) {
    EXPECT_EQ(rank.last_forward->ended, 3);
    EXPECT_EQ(rank.first_bucket->ended, 1);
    EXPECT_GT(rank.first_bucket->first_begin, rank.last_forward->last_end);
  }
}

TEST(InputOrder, InputGoesOnWhileComputationIsHeld) {
  const Watchdog watchdog("a step held in its first forward");
  SmallJob job;
  launch::Config config = job.config(1, 2, 3, 1);
  config.optimizer.warmup_steps = 0;
  const launch::JobInputs inputs = launch::JobInputs::open(config, 0, 1);
  CountingSource source(6'000, kVocab);
  Gate gate;
  const auto cpu = make_cpu_device();
  HeldDevice device(*cpu);
  const Watch& forward = device.watch("embedding", Phase::kForward, &gate);
  const Watch& copies = device.watch("train batch h2d", Phase::kInput);
  comm::ThreadsWorld world(1);
  const auto communicator = world.make_communicator(0);
  run_steps(2, inputs.job, device, *communicator, source, [&] {
    // Both steps' batches, of two micro-batches each, reach their device slots; all host slots are full behind them.
    EXPECT_TRUE(wait_until([&] { return gate.reached() && copies.ended == 2 && source.reads() == 5 * 2 * 3; }))
        << copies.ended << " copies, " << source.reads() << " reads";
    EXPECT_EQ(forward.begun, 0);
    gate.open();
  });
  EXPECT_EQ(forward.ended, 2 * 2);
}

}  // namespace
}  // namespace strake::test
