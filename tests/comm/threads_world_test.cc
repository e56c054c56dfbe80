// What a ThreadsWorld does when a rank fails: nobody waits for ever, and everybody learns who it was.
#include "comm/threads/threads_world.h"

#include <gtest/gtest.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "runtime/base/error.h"
#include "runtime/device/cpu/cpu_device.h"
#include "runtime/device/recording.h"
#include "tests/support/faulty_device.h"
#include "tests/support/gate.h"
#include "tests/support/rank_threads.h"
#include "tests/support/watchdog.h"

namespace strake::comm {
namespace {

// The CommError that `function` throws; a failure and no peer if it throws none.
std::optional<CommError> comm_error(const std::function<void()>& function) {
  try {
    function();
  } catch (const CommError& error) {
    return error;
  }
  ADD_FAILURE() << "no CommError";
  return std::nullopt;
}

void expect_names(const std::optional<CommError>& error, int peer, const std::string& text) {
  ASSERT_TRUE(error.has_value());
  EXPECT_EQ(error->peer_rank, peer) << error->what();
  EXPECT_NE(std::string(error->what()).find(text), std::string::npos) << error->what();
  EXPECT_NE(std::string(error->what()).find("rank " + std::to_string(peer)), std::string::npos) << error->what();
}

struct ThreadRank {
  ThreadRank(ThreadsWorld& world, int rank)
      : cpu(make_cpu_device()),
        device(*cpu),
        arena("data", MemoryKind::kDevice),
        data(Tensor::reserve(arena, DType::kF32, {1000})),
        communicator(world.make_communicator(rank)),
        stream(device.make_stream("comm", StreamPriority::kHigh)) {
    arena.allocate(device);
  }
  void all_reduce(std::string_view name) { communicator->all_reduce(*stream, {name, Phase::kComm}, data); }

  std::unique_ptr<Device> cpu;
  test::FaultyDevice device;
  Arena arena;
  Tensor data;
  std::unique_ptr<Communicator> communicator;
  std::unique_ptr<Stream> stream;
};

class ThreadsWorldFailures : public testing::Test {
 private:
  test::Watchdog watchdog_{testing::UnitTest::GetInstance()->current_test_info()->name()};
};

TEST_F(ThreadsWorldFailures, AbortEndsCollectivesOfTheOthers) {
  ThreadsWorld world(3);
  test::run_ranks(world, [&](int me) {
    const auto control = world.make_control(me);
    ThreadRank rank(world, me);
    rank.all_reduce("first");
    rank.stream->synchronize();
    if (me == 1) return control->abort(11);
    rank.all_reduce("second");
    const auto error = comm_error([&] { rank.stream->synchronize(); });
    expect_names(error, 1, "exit code 11");
    expect_names(error, 1, "'second'");
  });
}

TEST_F(ThreadsWorldFailures, AbortEndsControlOfTheOthers) {
  ThreadsWorld world(4);
  test::run_ranks(world, [&](int me) {
    const auto control = world.make_control(me);
    if (me == 2) return control->abort(17);
    if (me == 0) expect_names(comm_error([&] { control->barrier(); }), 2, "exit code 17");
    if (me == 1) {
      expect_names(comm_error([&] {
                     const double value = 1;
                     control->post({&value, 1});
                     control->finish();
                   }),
                   2, "exit code 17");
    }
    if (me == 3) expect_names(comm_error([&] { control->all_gather("text"); }), 2, "exit code 17");
  });
}

TEST_F(ThreadsWorldFailures, APoisonedDeviceIsAFailedRank) {
  ThreadsWorld world(3);
  test::run_ranks(world, [&](int me) {
    ThreadRank rank(world, me);
    if (me == 2) rank.device.faults().failures = {{.operation = "matmul"}};
    // The device of rank 2 fails in another stream than the collective's.
    const auto compute = rank.device.make_stream("compute", StreamPriority::kNormal);
    compute->launch({.label = {"matmul"}, .kind = "matmul", .reads = {}, .writes = {}}, [](NativeStream) {});
    if (me == 2) {
      EXPECT_THROW(compute->synchronize(), DeviceError);
    }
    rank.all_reduce("gradients");
    if (me != 2) expect_names(comm_error([&] { rank.stream->synchronize(); }), 2, "'gradients'");
    if (me == 2) {
      EXPECT_THROW(rank.stream->synchronize(), DeviceError);
    }
  });
}

TEST_F(ThreadsWorldFailures, WhatIsQueuedBehindAFailureIsAFailedRank) {
  ThreadsWorld world(2);
  test::run_ranks(world, [&](int me) {
    ThreadRank rank(world, me);
    rank.all_reduce("bucket 2");
    if (me == 1) {
      rank.stream->launch({.label = {"cast"}, .kind = "cast", .reads = {}, .writes = {}},
                          [](NativeStream) { throw DeviceError("the device is gone"); });
    }
    rank.all_reduce("bucket 3");
    rank.all_reduce("bucket 4");
    if (me == 0) expect_names(comm_error([&] { rank.stream->synchronize(); }), 1, "'bucket 3'");
    if (me == 1) {
      EXPECT_THROW(rank.stream->synchronize(), DeviceError);
    }
  });
}

TEST_F(ThreadsWorldFailures, ARankThatHasLeftIsNotWaitedFor) {
  ThreadsWorld world(3);
  test::run_ranks(world, [&](int me) {
    ThreadRank rank(world, me);
    rank.all_reduce("first");
    if (me == 0) return;  // its streams end what was enqueued; nobody loses the first
    rank.stream->synchronize();
    rank.all_reduce("second");
    expect_names(comm_error([&] { rank.stream->synchronize(); }), 0, "it has left, without 'second'");
  });
}

TEST_F(ThreadsWorldFailures, LeavingOneGroupIsNoFailureOfAnother) {
  ThreadsWorld world(3);
  test::run_ranks(world, [&](int me) {
    ThreadRank rank(world, me);
    {
      const auto pair = rank.communicator->split(me == 2 ? -1 : 0, me);
      if (me == 2) {
        EXPECT_EQ(pair, nullptr);
      }
    }
    rank.all_reduce("still whole");
    EXPECT_NO_THROW(rank.stream->synchronize());
  });
}

TEST_F(ThreadsWorldFailures, RanksAtDifferentCollectivesAreTold) {
  ThreadsWorld world(2);
  test::run_ranks(world, [&](int me) {
    ThreadRank rank(world, me);
    if (me == 0) rank.all_reduce("step");
    if (me == 1) rank.communicator->barrier(*rank.stream, {"step", Phase::kComm});
    const auto error = comm_error([&] { rank.stream->synchronize(); });
    ASSERT_TRUE(error.has_value());
    // Both see the disagreement, or the one that is slower sees that the other gave up.
    EXPECT_NE(std::string(error->what()).find("all_reduce"), std::string::npos) << error->what();
    EXPECT_NE(std::string(error->what()).find("barrier"), std::string::npos) << error->what();
  });
}

TEST_F(ThreadsWorldFailures, UnevenCountsMustAgreePairwise) {
  ThreadsWorld world(2);
  test::run_ranks(world, [&](int me) {
    ThreadRank rank(world, me);
    const std::vector<std::int64_t> send{me == 0 ? 5 : 1, me == 0 ? 2 : 5};
    const std::vector<std::int64_t> receive{me == 0 ? 5 : 3, me == 0 ? 1 : 5};  // rank 0 sends 2
    rank.communicator->all_to_all(*rank.stream, {"tokens", Phase::kComm}, rank.data.flat(0, 10), receive,
                                  rank.data.flat(10, 10), send);
    const auto error = comm_error([&] { rank.stream->synchronize(); });
    ASSERT_TRUE(error.has_value());
    EXPECT_NE(std::string(error->what()).find("rank 0 sends 2 elements to rank 1, which expects 3"), std::string::npos)
        << error->what();
  });
}

TEST_F(ThreadsWorldFailures, AFailureWhileEveryoneIsAtWorkLosesNothing) {
  // ThreadRank 1 fails on its host in the middle of many collectives: each rank either completes a collective or
  // throws, and no buffer is freed while a peer still reads it (address sanitizer).
  for (int round = 0; round < 20; ++round) {
    ThreadsWorld world(3);
    test::run_ranks(world, [&](int me) {
      const auto control = world.make_control(me);
      ThreadRank rank(world, me);
      for (int i = 0; i < round; ++i) rank.all_reduce("gradients");
      if (me == 1) control->abort(14);
      for (int i = 0; i < 20; ++i) rank.all_reduce("gradients");
      try {
        rank.stream->synchronize();
      } catch (const CommError& error) {
        EXPECT_EQ(error.peer_rank, 1) << error.what();
      }
    });
  }
}

TEST(ThreadsWorldDeathTest, OnePostAtATime) {
  ThreadsWorld world(1);
  const auto control = world.make_control(0);
  EXPECT_DEATH(control->finish(), "nothing was posted");
  control->post({});
  EXPECT_DEATH(control->post({}), "previous post");
}

TEST(ThreadsWorldDeathTest, BuffersAreChecked) {
  ThreadsWorld world(1);
  const auto comm = world.make_communicator(0);
  PlanDevice plan;  // no threads beside a death test
  const auto stream = plan.make_stream("comm", StreamPriority::kHigh);
  Arena arena("data", MemoryKind::kDevice);
  const Tensor data = Tensor::reserve(arena, DType::kF32, {1000});
  EXPECT_DEATH(comm->all_reduce(*stream, {"sum"}, data.with_strides({10}, {2})), "cannot reduce");
  EXPECT_DEATH(comm->all_gather(*stream, {"gather"}, data.flat(0, 10), data.flat(5, 10)), "overlap");
  EXPECT_DEATH(comm->reduce_scatter(*stream, {"piece"}, data.flat(0, 10), data.flat(20, 11)), "do not fit");
  EXPECT_DEATH(comm->broadcast(*stream, {"weights"}, data, 1), "no rank 1");
}

}  // namespace
}  // namespace strake::comm
