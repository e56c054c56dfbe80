#include "tests/support/delayed_communicator.h"

#include <gtest/gtest.h>

#include "comm/threads/threads_world.h"
#include "runtime/device/recording.h"

namespace strake::test {
namespace {

std::vector<std::string> kernels_of_an_all_reduce(CollectiveDelay delay) {
  comm::ThreadsWorld world(2);
  std::vector<std::string> kernels;
  for (int rank = 0; rank < world.size(); ++rank) {
    DelayedCommunicator communicator(world.make_communicator(rank), delay);
    Arena arena("data", MemoryKind::kDevice);
    const Tensor data = Tensor::reserve(arena, DType::kF32, {8});
    PlanDevice plan;
    const auto stream = plan.make_stream("comm", StreamPriority::kHigh);
    communicator.all_reduce(*stream, {"sum", Phase::kComm}, data);
    for (const RecordedEntry& entry : plan.recording().entries) {
      kernels.push_back(std::to_string(rank) + " " + entry.kernel);
    }
  }
  return kernels;
}

TEST(DelayedCommunicator, DelaysChosenRanksBeforeTheCollective) {
  using Kernels = std::vector<std::string>;
  EXPECT_EQ(kernels_of_an_all_reduce({}), (Kernels{"0 delay", "0 all_reduce", "1 delay", "1 all_reduce"}));
  EXPECT_EQ(kernels_of_an_all_reduce({.ranks = {1}}), (Kernels{"0 all_reduce", "1 delay", "1 all_reduce"}));
}

}  // namespace
}  // namespace strake::test
