// What a dry run says of a step before memory is taken.

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "launch/job/job_inputs.h"
#include "launch/train/trainer.h"
#include "tests/integration/small_job.h"

namespace strake::launch {
namespace {

StepPlan planned(int accumulation, int ranks = 1) {
  test::SmallJob job;
  Config config = job.config(ranks, accumulation, 2, 1);
  config.model.layers = 6;
  comm::ThreadsWorld world(ranks);
  const JobInputs inputs = JobInputs::open(config, 0, ranks);
  return Trainer::plan(inputs.job, *world.make_communicator(0), inputs.sources());
}

TEST(StepPlan, ActivationsDoNotGrowWithTheMicroBatches) {
  for (const int ranks : {1, 2}) {
    const std::size_t one_bytes = planned(1, ranks).activations.size_bytes;
    EXPECT_GT(one_bytes, 0u);
    for (const int accumulation : {2, 3, 8}) {
      EXPECT_EQ(planned(accumulation, ranks).activations.size_bytes, one_bytes)
          << accumulation << " micro-batches, " << ranks << " ranks";
    }
  }
}

TEST(StepPlan, NoActivationIsKeptThroughTheStep) {
  const StepPlan plan = planned(2);
  for (const MemoryBlock& block : plan.activations.blocks) {
    ASSERT_FALSE(block.lives.empty()) << block.name;
    EXPECT_GE(block.lives.size(), 2u) << block.name << ": a life a micro-batch at least";
  }
}

TEST(StepPlan, SaysWhatTheFullestOperationNeeds) {
  const StepPlan plan = planned(2);
  const MemoryPlan& memory = plan.activations;
  std::size_t sum_bytes = 0;
  std::vector<std::string> names;
  for (const MemoryBlock* block : memory.at_peak()) {
    sum_bytes += (block->size_bytes + Arena::kAlignmentBytes - 1) / Arena::kAlignmentBytes * Arena::kAlignmentBytes;
    names.push_back(block->name);
  }
  EXPECT_EQ(sum_bytes, memory.peak_bytes);
  ASSERT_FALSE(names.empty());
  EXPECT_EQ(names.front(), "logits") << "the vocabulary is the widest of this model";
}

}  // namespace
}  // namespace strake::launch
