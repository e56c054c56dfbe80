// What the CPU device promises beyond the contract of every backend: thrown errors, the bound on queued
// operations, exact idle times. Wrappers keep these promises too.

#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>

#include "runtime/base/error.h"
#include "runtime/device/cpu/operation_queue.h"
#include "runtime/device/host_memory.h"
#include "tests/runtime/device/device_under_test.h"
#include "tests/support/gate.h"
#include "tests/support/thrown_by.h"

namespace strake::test {
namespace {

class CpuDevice : public testing::TestWithParam<DeviceFactory> {
 protected:
  Device& device() { return under_test_->device(); }
  std::unique_ptr<Stream> stream(std::string_view name) { return device().make_stream(name, StreamPriority::kNormal); }
  static void call(Stream& stream, std::function<void()> function) {
    stream.launch({.label = {"call"}, .kind = "host function", .reads = {}, .writes = {}},
                  [function = std::move(function)](NativeStream) { function(); });
  }
  static void wait(Stream& stream, const Event& event) { stream.wait(event, {"test", Hazard::kReadAfterWrite}); }

 private:
  std::unique_ptr<DeviceUnderTest> under_test_ = GetParam().make();
};

INSTANTIATE_TEST_SUITE_P(Devices, CpuDevice, testing::ValuesIn(kCpuDevices), name_of_device);

TEST_P(CpuDevice, FailedOperationPoisonsTheDevice) {
  const auto a = stream("a"), b = stream("b");
  Event failed = device().make_event("failed");
  Mark behind = device().make_mark("behind the failure");
  std::atomic<int> ran{0};
  device().check();
  call(*a, [&] { ++ran; });
  call(*a, [] { throw DeviceError("the first failure"); });
  call(*a, [&] { ++ran; });
  call(*a, [] { throw DeviceError("a later failure"); });
  a->record(failed);
  wait(*b, failed);
  b->mark(behind);
  call(*b, [&] { ++ran; });
  EXPECT_TRUE(wait_until([&] { return device().complete(failed); })) << "events complete behind a failure";
  EXPECT_TRUE(wait_until([&] { return device().complete(behind); })) << "marks are reached behind a failure";

  EXPECT_EQ(thrown_by<DeviceError>([&] { b->synchronize(); }), "the first failure");
  EXPECT_EQ(thrown_by<DeviceError>([&] { a->synchronize(); }), "the first failure");
  EXPECT_EQ(thrown_by<DeviceError>([&] { device().check(); }), "the first failure");
  EXPECT_EQ(thrown_by<DeviceError>([&] { device().synchronize(failed); }), "the first failure");
  std::string elsewhere;
  std::thread other([&, ticket = device().ticket(failed)] {
    elsewhere = thrown_by<DeviceError>([&] { device().host_wait(ticket); });
  });
  other.join();
  EXPECT_EQ(elsewhere, "the first failure");

  // It stays poisoned: new work is accepted and skipped, copies too.
  Arena arena("host", MemoryKind::kHost);
  const Tensor source = Tensor::reserve(arena, DType::kU8, {16}), seen = Tensor::reserve(arena, DType::kU8, {16});
  arena.allocate(device());
  host_span<std::uint8_t>(source)[0] = 1;
  b->copy({"copy"}, seen, source);
  call(*b, [&] { ++ran; });
  EXPECT_EQ(thrown_by<DeviceError>([&] { b->synchronize(); }), "the first failure");
  EXPECT_EQ(host_span<std::uint8_t>(seen)[0], 0);
  EXPECT_EQ(ran, 1);
}

TEST_P(CpuDevice, WhateverWasThrownIsThrownAgain) {
  const auto a = stream("a");
  call(*a, [] { throw std::out_of_range("not one of ours"); });
  EXPECT_THROW(a->synchronize(), std::out_of_range);
  EXPECT_THROW(device().check(), std::out_of_range);
}

TEST_P(CpuDevice, CheckSeesTheErrorWithoutASynchronisation) {
  const auto a = stream("a");
  call(*a, [] { throw DeviceError("seen late"); });
  EXPECT_TRUE(wait_until([&] { return thrown_by<DeviceError>([&] { device().check(); }) == "seen late"; }));
}

TEST_P(CpuDevice, DevicesDoNotShareErrors) {
  const auto other = GetParam().make();
  const auto a = stream("a");
  call(*a, [] { throw DeviceError("mine"); });
  EXPECT_EQ(thrown_by<DeviceError>([&] { a->synchronize(); }), "mine");
  other->device().check();
  other->device().make_stream("b", StreamPriority::kNormal)->synchronize();
}

TEST_P(CpuDevice, QueueIsBoundedAndThenBlocksTheHostOnly) {
  constexpr std::uint32_t kOperations = 3 * cpu::OperationQueue::kMaxQueued;
  Gate gate;
  std::uint32_t ran = 0;
  std::atomic<std::uint32_t> enqueued{0};
  const auto a = stream("a");
  // As many are queued as the bound allows, beside the one that holds the stream; then it goes on.
  std::thread opener([&] {
    EXPECT_TRUE(wait_until([&] { return enqueued.load() >= cpu::OperationQueue::kMaxQueued - 1; }));
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // the host's chance to break the bound
    EXPECT_LE(enqueued.load(), cpu::OperationQueue::kMaxQueued);
    gate.open();
  });
  call(*a, [&gate] { gate.pass(); });
  for (std::uint32_t i = 0; i < kOperations; ++i) {
    call(*a, [&ran] { ++ran; });
    enqueued.fetch_add(1);
  }
  opener.join();
  a->synchronize();
  EXPECT_EQ(ran, kOperations);
}

// A full queue whose head waits for another stream is no deadlock: what it waits for is enqueued already.
TEST_P(CpuDevice, FullQueueBehindAWaitMovesOn) {
  constexpr std::uint32_t kOperations = 2 * cpu::OperationQueue::kMaxQueued;
  std::uint32_t ran = 0;
  const auto a = stream("a"), b = stream("b");
  Event recorded = device().make_event("recorded");
  for (int round = 0; round < 2; ++round) {
    call(*a, [] { std::this_thread::sleep_for(std::chrono::milliseconds(5)); });
    a->record(recorded);
    wait(*b, recorded);
    for (std::uint32_t i = 0; i < kOperations; ++i) call(*b, [&ran] { ++ran; });
  }
  b->synchronize();
  EXPECT_EQ(ran, 2 * kOperations);
}

TEST_P(CpuDevice, BusyStreamIsNotStarved) {
  Gate gate;
  const auto a = stream("a");
  Mark from = device().make_mark("from"), to = device().make_mark("to");
  call(*a, [&gate] { gate.pass(); });
  a->mark(from);
  for (int i = 0; i < 100; ++i) call(*a, [] {});
  a->mark(to);  // everything is enqueued before anything runs
  gate.open();
  a->synchronize();
  EXPECT_EQ(device().starved(from, to), Nanoseconds(0));
  EXPECT_GE(device().elapsed(from, to), Nanoseconds(0));
}

TEST_P(CpuDevice, IdleStreamIsStarved) {
  const auto a = stream("a");
  Mark from = device().make_mark("from"), to = device().make_mark("to");
  a->mark(from);
  // When the worker goes idle is its own affair: ask again until it did before the host went on.
  EXPECT_TRUE(wait_until([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    a->mark(to);
    a->synchronize();
    return device().starved(from, to) > Nanoseconds(0);
  }));
  EXPECT_LE(device().starved(from, to), device().elapsed(from, to));
}

// A stream that waits for another is blocked, not starved.
TEST_P(CpuDevice, WaitingStreamIsNotStarved) {
  Gate gate;
  const auto a = stream("a"), b = stream("b");
  Event held = device().make_event("held");
  Mark from = device().make_mark("from"), to = device().make_mark("to");
  Gate start;
  call(*b, [&start] { start.pass(); });
  b->mark(from);
  call(*a, [&gate] { gate.pass(); });
  a->record(held);
  wait(*b, held);
  b->mark(to);
  start.open();
  ASSERT_TRUE(wait_until([&] { return device().complete(from); }));
  gate.open();
  b->synchronize();
  EXPECT_EQ(device().starved(from, to), Nanoseconds(0));
}

// The time slice that the scheduler gives the worker of a stream; 0: this kernel knows no slices of threads.
TEST_P(CpuDevice, WorkersOfHighPriorityAskForShortTurns) {
  struct SchedulerAttributes {
    std::uint32_t size, policy;
    std::uint64_t flags;
    std::int32_t nice;
    std::uint32_t priority;
    std::uint64_t runtime, deadline, period;
  };
  const auto slice_of = [&](StreamPriority priority) {
    SchedulerAttributes attributes = {};
    const auto worker = device().make_stream("worker", priority);
    call(*worker, [&] { syscall(SYS_sched_getattr, 0, &attributes, sizeof attributes, 0); });
    worker->synchronize();
    return attributes.runtime;
  };
  const std::uint64_t normal = slice_of(StreamPriority::kNormal);
  if (normal == 0) GTEST_SKIP() << "this kernel knows no slices of threads";
  EXPECT_LT(slice_of(StreamPriority::kHigh), normal);
}

TEST_P(CpuDevice, OutOfMemoryNamesArenaAndBytes) {
  Arena arena("activations", MemoryKind::kDevice);
  arena.reserve(std::size_t{1} << 60);
  const std::string message = thrown_by<OutOfMemoryError>([&] { arena.allocate(device()); });
  EXPECT_NE(message.find("'activations'"), std::string::npos) << message;
  EXPECT_NE(message.find("1152921504606846976 bytes"), std::string::npos) << message;
}

}  // namespace
}  // namespace strake::test
