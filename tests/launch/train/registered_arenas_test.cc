// What a run tells its communicator of the memory that collectives use: whole arenas, once, in one order on all ranks,
// forgotten before the memory goes; and that collectives use nothing else but a few sums.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "comm/forwarding_communicator.h"
#include "comm/registered_memory.h"
#include "comm/threads/threads_world.h"
#include "runtime/device/cpu/cpu_device.h"
#include "tests/integration/small_job.h"
#include "tests/support/rank_threads.h"

namespace strake::launch {
namespace {

// Notes what it is told, and collectives of memory that it was not told of.
class NotingCommunicator final : public comm::ForwardingCommunicator {
 public:
  using ForwardingCommunicator::ForwardingCommunicator;

  void register_memory(const Arena& arena) override {
    EXPECT_NE(arena.base().value, 0u) << arena.name();
    known_.push_back(&arena);
    told.push_back(arena.name());
  }
  void forget_memory(const Arena& arena) noexcept override {
    EXPECT_TRUE(arena.allocated()) << arena.name();
    ASSERT_FALSE(known_.empty());
    EXPECT_EQ(known_.back(), &arena) << "the last first";
    known_.pop_back();
  }
  bool forgot_all() const { return known_.empty(); }

  std::vector<std::string> told;
  std::vector<std::string> unknown;  // collectives' names
  int collectives = 0;

 protected:
  void launch(Stream& stream, const Operation& operation, Body body) override {
    ++collectives;
    for (const auto& tensors : {operation.reads, operation.writes}) {
      for (const Tensor& tensor : tensors) {
        if (stream.device().kind() != DeviceKind::kPlan && std::ranges::find(known_, &tensor.arena()) == known_.end())
          unknown.emplace_back(operation.label.name);
      }
    }
    ForwardingCommunicator::launch(stream, operation, std::move(body));
  }

 private:
  std::vector<const Arena*> known_;
};

// What rank 0 was told, the same on every rank.
std::vector<std::string> told_of(Config config, int ranks) {
  comm::ThreadsWorld world(ranks);
  std::vector<std::vector<std::string>> told(static_cast<std::size_t>(ranks));
  test::run_ranks(world, [&](int rank) {
    const auto device = make_cpu_device();
    const auto control = world.make_control(rank);
    NotingCommunicator communicator(world.make_communicator(rank));
    test::RankSetup setup;
    setup.device = device.get();
    test::run_rank(config, communicator, *control, setup);
    EXPECT_GT(communicator.collectives, 0);
    EXPECT_TRUE(communicator.forgot_all());
    // A step's own, of a few numbers; what is passed on when a checkpoint is loaded is sent once.
    for (const std::string& name : communicator.unknown) {
      EXPECT_TRUE(name == "block sums all-reduce" || name == "pass on checkpoint") << name;
    }
    told[static_cast<std::size_t>(rank)] = communicator.told;
  });
  for (const auto& each : told) EXPECT_EQ(each, told.front());
  return told.front();
}

TEST(RegisteredArenas, AreThoseThatCollectivesUse) {
  using Names = std::vector<std::string>;
  test::SmallJob job;
  Config config = job.config(2, 1, 2, 3);
  config.comm.split_embedding = SplitTable::kNever;
  EXPECT_EQ(told_of(config, 2), (Names{"gradients"}));
  config.comm.split_embedding = SplitTable::kAlways;
  EXPECT_EQ(told_of(config, 2), (Names{"gradients", "gradients in transit"})) << "rows are gathered";

  config = job.config(2, 2, 2, 3);
  config.comm.split_embedding = SplitTable::kNever;
  config.comm.wire_dtype = ComputeType::kBF16;
  EXPECT_EQ(told_of(config, 2), (Names{"gradients in transit"})) << "what travels, not what it is made from";

  config = job.config(3, 1, 2, 3);
  config.comm.split_embedding = SplitTable::kNever;
  config.train.shard = models::Shard::kOptimizer;
  EXPECT_EQ(told_of(config, 3), (Names{"gradients", "weights"}));
}

TEST(RegisteredArenas, AnEmptyArenaIsNone) {
  comm::ThreadsWorld world(1);
  NotingCommunicator communicator(world.make_communicator(0));
  const auto device = make_cpu_device();
  Arena empty("nothing", MemoryKind::kDevice), some("something", MemoryKind::kDevice);
  some.reserve(64);
  empty.allocate(*device);
  some.allocate(*device);
  {
    comm::RegisteredMemory registered(communicator);
    registered.add(empty);
    registered.add(some);
    EXPECT_FALSE(communicator.forgot_all());
  }
  EXPECT_TRUE(communicator.forgot_all());
  EXPECT_EQ(communicator.told, std::vector<std::string>{"something"});
}

}  // namespace
}  // namespace strake::launch
