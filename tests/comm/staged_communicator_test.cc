// What a StagedCommunicator does beside the contract: who waits for whom, and that nobody does for ever.
#include "comm/staged/staged_communicator.h"

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "comm/forwarding_communicator.h"
#include "comm/threads/threads_world.h"
#include "runtime/base/error.h"
#include "runtime/device/cpu/cpu_device.h"
#include "runtime/device/cpu/cpu_memory.h"
#include "runtime/device/forwarding.h"
#include "tests/support/faulty_device.h"
#include "tests/support/gate.h"
#include "tests/support/rank_threads.h"
#include "tests/support/thrown_by.h"
#include "tests/support/watchdog.h"

namespace strake::comm {
namespace {

constexpr std::int64_t kChunkBytes = 4096;
constexpr std::int64_t kChunkElems = kChunkBytes / 4;  // f32

// A host communicator whose all-reduces can be held, and are counted as they begin.
class HeldCommunicator final : public ForwardingCommunicator {
 public:
  explicit HeldCommunicator(std::unique_ptr<Communicator> inner) : ForwardingCommunicator(std::move(inner)) {}
  std::unique_ptr<test::Gate> gate;  // null: nothing is held
  std::atomic<int> begun{0};

 protected:
  Body all_reduce_body(const std::string& name, const Tensor& data) override {
    return [this, body = ForwardingCommunicator::all_reduce_body(name, data)](NativeStream native) {
      ++begun;
      if (gate != nullptr) gate->body()(native);
      body(native);
    };
  }
};

// Counts the copies that have been made.
class CopyCountingDevice final : public ForwardingDevice {
 public:
  using ForwardingDevice::ForwardingDevice;
  Body copy_body(const Tensor& dst, const Tensor& src) override {
    return [this, body = ForwardingDevice::copy_body(dst, src)](NativeStream native) {
      body(native);
      ++copies;
    };
  }
  std::atomic<int> copies{0};
};

struct StagedRank {
  StagedRank(ThreadsWorld& world, int rank, std::int64_t elems = kChunkElems)
      : cpu(make_cpu_device()),
        copying(*cpu),
        device(copying),
        data(Tensor::reserve(arena, DType::kF32, {elems})),
        stream_done(device.make_event("done")) {
    auto held = std::make_unique<HeldCommunicator>(world.make_communicator(rank));
    host = held.get();
    communicator = std::make_unique<StagedCommunicator>(std::move(held), device, kChunkBytes);
    stream = device.make_stream("comm", StreamPriority::kHigh);
    arena.allocate(device);
    for (std::int64_t i = 0; i < elems; ++i) cpu::data<float>(data)[i] = static_cast<float>(rank + 1);
  }
  void all_reduce(std::string_view name, std::int64_t elems = kChunkElems) {
    communicator->all_reduce(*stream, {name, Phase::kComm}, data.flat(0, elems));
    stream->record(stream_done);
  }
  bool done() const { return device.complete(stream_done); }

  std::unique_ptr<Device> cpu;
  CopyCountingDevice copying;
  test::FaultyDevice device;
  Arena arena{"data", MemoryKind::kDevice};
  Tensor data;
  Event stream_done;
  HeldCommunicator* host = nullptr;
  std::unique_ptr<Communicator> communicator;
  std::unique_ptr<Stream> stream;
};

class Staged : public testing::Test {
 private:
  test::Watchdog watchdog_{testing::UnitTest::GetInstance()->current_test_info()->name()};
};

TEST_F(Staged, TheStreamWaitsForTheExchange) {
  ThreadsWorld world(2);
  test::run_ranks(world, [&](int me) {
    const auto control = world.make_control(me);
    StagedRank rank(world, me);
    if (me == 0) rank.host->gate = std::make_unique<test::Gate>();
    rank.all_reduce("gradients");
    if (me == 0) {
      EXPECT_TRUE(test::wait_until([&] { return rank.host->gate->reached(); }));
      EXPECT_FALSE(rank.done()) << "the stream goes on with what is not summed";
      // Another stream does: this one holds up nobody.
      const auto other = rank.device.make_stream("compute", StreamPriority::kNormal);
      other->launch({.label = {"work"}, .kind = "work", .reads = {}, .writes = {}}, [](NativeStream) {});
      other->synchronize();
      rank.host->gate->open();
    }
    rank.stream->synchronize();
    EXPECT_EQ(cpu::data<float>(rank.data)[7], 3);
    control->barrier();
  });
}

TEST_F(Staged, TheExchangeWaitsForTheStream) {
  ThreadsWorld world(2);
  test::run_ranks(world, [&](int me) {
    const auto control = world.make_control(me);
    StagedRank rank(world, me);
    test::Gate gate;
    rank.stream->launch({.label = {"backward"}, .kind = "work", .reads = {}, .writes = {}}, gate.body());
    rank.all_reduce("gradients");
    EXPECT_TRUE(test::wait_until([&] { return gate.reached(); }));
    control->barrier();
    EXPECT_EQ(rank.host->begun, 0) << "gradients are exchanged before they are final";
    control->barrier();
    gate.open();
    rank.stream->synchronize();
    EXPECT_EQ(rank.host->begun, 1);
    EXPECT_EQ(cpu::data<float>(rank.data)[7], 3);
  });
}

// One chunk ahead, and no further: its memory is the chunk's before.
TEST_F(Staged, AChunkIsCopiedWhileTheOneBeforeIsExchanged) {
  ThreadsWorld world(2);
  test::run_ranks(world, [&](int me) {
    const auto control = world.make_control(me);
    StagedRank rank(world, me, 5 * kChunkElems);
    if (me == 0) rank.host->gate = std::make_unique<test::Gate>();
    rank.all_reduce("gradients", 5 * kChunkElems);
    if (me == 0) {
      EXPECT_TRUE(test::wait_until([&] { return rank.host->gate->reached(); }));
      EXPECT_TRUE(test::wait_until([&] { return rank.copying.copies == 2; })) << rank.copying.copies;
      EXPECT_EQ(rank.host->begun, 1);
      rank.host->gate->open();
    }
    rank.stream->synchronize();
    EXPECT_EQ(rank.copying.copies, 10);
    EXPECT_EQ(rank.host->begun, 5);
    for (std::int64_t i = 0; i < 5 * kChunkElems; ++i) ASSERT_EQ(cpu::data<float>(rank.data)[i], 3) << i;
    control->barrier();
  });
}

TEST_F(Staged, AbortEndsWhatIsInFlight) {
  ThreadsWorld world(2);
  test::run_ranks(world, [&](int me) {
    const auto control = world.make_control(me);
    StagedRank rank(world, me, 5 * kChunkElems);
    if (me == 1) {  // never comes to the second one
      rank.all_reduce("first");
      rank.stream->synchronize();
      EXPECT_NE(test::thrown_by<CommError>([&] { control->barrier(); }), "nothing") << "nobody has told it";
      return;
    }
    rank.all_reduce("first");
    rank.stream->synchronize();
    rank.all_reduce("second");
    rank.all_reduce("third", 5 * kChunkElems);
    rank.all_reduce("fourth");
    EXPECT_TRUE(test::wait_until([&] { return rank.host->begun == 2; }));
    EXPECT_FALSE(rank.done()) << "rank 1 does not take part";
    std::thread([&] { rank.communicator->abort(); }).join();
    EXPECT_TRUE(test::wait_until([&] { return rank.done(); })) << "the stream is held up";
    const auto expect_aborted = [&](const std::function<void()>& call) {
      const std::string said = test::thrown_by<CommError>(call);
      EXPECT_NE(said.find("aborted"), std::string::npos) << said;
    };
    expect_aborted([&] { rank.communicator->check(); });
    expect_aborted([&] { rank.all_reduce("fifth"); });
    expect_aborted([&] { rank.stream->synchronize(); });
    rank.communicator->abort();  // once more is nothing
  });
}

TEST_F(Staged, AbortLetsAStreamThroughThatComesLater) {
  ThreadsWorld world(2);
  test::run_ranks(world, [&](int me) {
    StagedRank rank(world, me, 5 * kChunkElems);
    if (me == 1) return;
    test::Gate gate;
    rank.stream->launch({.label = {"backward"}, .kind = "work", .reads = {}, .writes = {}}, gate.body());
    rank.all_reduce("one", 5 * kChunkElems);
    rank.all_reduce("two");
    rank.communicator->abort();
    gate.open();
    EXPECT_TRUE(test::wait_until([&] { return rank.done(); })) << "the stream is held up";
    EXPECT_NE(test::thrown_by<CommError>([&] { rank.stream->synchronize(); }), "nothing");
  });
}

// As a GPU's streams do, which have been told everything before the failure.
TEST_F(Staged, ReleasedFlagsHoldUpNobodyEverAgain) {
  const auto device = make_cpu_device();
  Arena memory("flags", MemoryKind::kHost);
  StagingFlags flags(memory);
  memory.allocate(*device);
  Event done = device->make_event("done");
  test::Gate gate;
  const auto stream = device->make_stream("comm", StreamPriority::kHigh);
  const auto launch = [&](Body body) {
    stream->launch({.label = {"flag"}, .kind = "flag", .reads = {}, .writes = {}}, std::move(body));
  };
  for (std::int64_t chunk = 0; chunk < 10; ++chunk) {
    if (chunk == 5) launch(gate.body());
    launch(flags.hand_over_body(*device, chunk));
    launch(flags.take_back_body(*device, chunk));
  }
  stream->record(done);
  for (std::int64_t chunk = 0; chunk < 4; ++chunk) {
    EXPECT_TRUE(flags.await(chunk));
    EXPECT_FALSE(device->complete(done));
    flags.give_back(chunk);
  }
  EXPECT_TRUE(flags.await(4));
  std::thread([&] { flags.release(); }).join();
  flags.give_back(4);  // the proxy learns it late
  EXPECT_FALSE(flags.await(5));
  gate.open();
  EXPECT_TRUE(test::wait_until([&] { return device->complete(done); })) << "a later chunk is waited for";
  flags.release();
}

TEST_F(Staged, ADroppedCollectiveIsAFailedRank) {
  ThreadsWorld world(2);
  std::atomic<bool> told{false};  // rank 0; else it might learn it from rank 1's end
  test::run_ranks(world, [&](int me) {
    StagedRank rank(world, me);
    if (me == 1) {
      rank.device.faults().failures = {{.operation = "matmul"}};
      const auto compute = rank.device.make_stream("compute", StreamPriority::kNormal);
      compute->launch({.label = {"matmul"}, .kind = "matmul", .reads = {}, .writes = {}}, [](NativeStream) {});
      EXPECT_THROW(compute->synchronize(), DeviceError);
    }
    rank.all_reduce("gradients");
    if (me == 1) {
      EXPECT_THROW(rank.stream->synchronize(), DeviceError);
      EXPECT_TRUE(test::wait_until([&] {
        return test::thrown_by<CommError>([&] { rank.communicator->check(); }).find("'gradients'") != std::string::npos;
      }));
      EXPECT_TRUE(test::wait_until([&] { return told.load(); }));
    } else {
      const std::string said = test::thrown_by<CommError>([&] { rank.stream->synchronize(); });
      EXPECT_NE(said.find("rank 1 has failed"), std::string::npos) << said;
      told = true;
    }
  });
}

// Both are cut into several chunks, and their first chunks are alike.
TEST_F(Staged, RanksThatAgreeOnTheFirstChunkOnlyAreToldApart) {
  ThreadsWorld world(2);
  test::run_ranks(world, [&](int me) {
    StagedRank rank(world, me, 3 * kChunkElems);
    rank.all_reduce("gradients", (2 + me) * kChunkElems);
    const std::string said = test::thrown_by<DisagreementError>([&] { rank.stream->synchronize(); });
    EXPECT_NE(said.find("'gradients'"), std::string::npos) << said;
    EXPECT_NE(said.find("all_reduce of 2048 elements"), std::string::npos) << said;
    EXPECT_NE(said.find("all_reduce of 3072 elements"), std::string::npos) << said;
    EXPECT_EQ(rank.host->begun, 0) << "of sums that nobody may take";
  });
}

TEST_F(Staged, MemoryIsTakenOnceAndAsPlanned) {
  ThreadsWorld world(1);
  const auto device = make_cpu_device();
  const StagedCommunicator communicator(world.make_communicator(0), *device);
  EXPECT_EQ(device->allocated_bytes(), communicator.staging_bytes());
  EXPECT_EQ(StagedCommunicator::staging_bytes_of(1), communicator.staging_bytes());
  EXPECT_GE(StagedCommunicator::staging_bytes_of(8), 4 * StagedCommunicator::kChunkBytes);
}

}  // namespace
}  // namespace strake::comm
