// Proof that ThreadSanitizer sees what the streams promise, and nothing more: the three-stream loop is clean,
// and with any one wait left out it is reported, also when host or streams are so slow that the race never
// shows in time. If the plumbing of streams, events or test wrappers ordered anything by luck, such masked
// cases would pass unseen.

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <string>
#include <string_view>
#include <thread>

#include "runtime/device/cpu/cpu_device.h"
#include "tests/runtime/device/three_stream_loop.h"
#include "tests/support/faulty_device.h"
#include "tests/support/gate.h"
#include "tests/support/tsan_child.h"

namespace strake::test {
namespace {

constexpr std::string_view kLoopArgument = "--loop=";
constexpr std::string_view kNone = "none", kPunctual = "punctual", kSlowHost = "slow_host", kJitter = "jitter",
                           kSlowCompute = "slow_compute", kSlowComm = "slow_comm";
constexpr std::string_view kLateHostArgument = "--late-host", kCopyArgument = "--copy", kMarkArgument = "--mark";
constexpr std::int64_t kSteps = 12;

// --loop=<timing>:<site of the wait to drop, or none>
int run_loop(std::string_view argument) {
  const auto colon = argument.find(':');
  const std::string_view timing = argument.substr(0, colon), site = argument.substr(colon + 1);
  const auto cpu = make_cpu_device();
  FaultyDevice device(*cpu, /*seed=*/11);
  if (site != kNone) device.faults().wait_to_drop = site;
  constexpr std::chrono::microseconds kSlow(300);
  auto& delays = device.faults().delays;
  if (timing == kSlowHost) delays.push_back({.fixed = kSlow, .where = Delay::Where::kHost});
  if (timing == kJitter) delays.push_back({.random = kSlow});
  if (timing == kSlowCompute) delays.push_back({.target = {.stream = "compute"}, .fixed = 10 * kSlow});
  if (timing == kSlowComm) delays.push_back({.target = {.stream = "comm"}, .fixed = 10 * kSlow});
  ThreeStreamLoop loop(device);
  const std::int64_t first = loop.run(kSteps);
  return site == kNone && first != ThreeStreamLoop::expected(kSteps) ? 1 : 0;
}

// A read on one stream that nothing orders behind a write on another; only afterwards, while the read still
// waits to run, the host learns that the write has run and enqueues more. The queue must not hand that on.
int run_late_host() {
  Gate gate;
  const auto cpu = make_cpu_device();
  Arena arena("arena", MemoryKind::kHost);
  const Tensor shared = Tensor::reserve(arena, DType::kI64, {1});
  arena.allocate(*cpu);
  const auto writer = cpu->make_stream("writer", StreamPriority::kNormal);
  const auto reader = cpu->make_stream("reader", StreamPriority::kNormal);
  const auto launch = [](Stream& stream, Body body) {
    stream.launch({.label = {"operation"}, .kind = "test", .reads = {}, .writes = {}}, std::move(body));
  };
  std::int64_t seen = 0;
  launch(*reader, gate.body());
  launch(*writer, [shared](NativeStream) { host_span<std::int64_t>(shared)[0] = 1; });
  launch(*reader, [shared, &seen](NativeStream) { seen = host_span<std::int64_t>(shared)[0]; });
  writer->synchronize();
  launch(*reader, [](NativeStream) {});
  gate.open();
  reader->synchronize();
  return seen == 1 ? 0 : 1;
}

// A read enqueued only after the host has seen the mark behind the write: in time, and ordered by nothing.
int run_mark() {
  const auto cpu = make_cpu_device();
  Arena arena("arena", MemoryKind::kHost);
  const Tensor shared = Tensor::reserve(arena, DType::kI64, {1});
  arena.allocate(*cpu);
  const auto writer = cpu->make_stream("writer", StreamPriority::kNormal);
  const auto reader = cpu->make_stream("reader", StreamPriority::kNormal);
  Mark written = cpu->make_mark("written");
  std::int64_t seen = 0;
  const auto launch = [](Stream& stream, Body body) {
    stream.launch({.label = {"operation"}, .kind = "test", .reads = {}, .writes = {}}, std::move(body));
  };
  launch(*writer, [shared](NativeStream) { host_span<std::int64_t>(shared)[0] = 1; });
  writer->mark(written);
  while (!cpu->complete(written)) std::this_thread::yield();
  launch(*reader, [shared, &seen](NativeStream) { seen = host_span<std::int64_t>(shared)[0]; });
  reader->synchronize();
  return seen == 1 ? 0 : 1;
}

// Two threads copy to the same place a size that the compiler knows.
int run_copy() {
  std::array<char, 256> a{}, b{}, both{};
  std::thread other([&] { std::memcpy(both.data(), a.data(), both.size()); });
  std::memcpy(both.data(), b.data(), both.size());
  other.join();
  return both[0];
}

TsanChild loop(std::string_view timing, std::string_view site) {
  return TsanChild(std::string(kLoopArgument) + std::string(timing) + ":" + std::string(site));
}

class TsanProofOfLoop : public testing::TestWithParam<std::string_view> {};

INSTANTIATE_TEST_SUITE_P(Timings, TsanProofOfLoop,
                         testing::Values(kPunctual, kSlowHost, kJitter, kSlowCompute, kSlowComm),
                         [](const auto& timing) { return std::string(timing.param); });

TEST_P(TsanProofOfLoop, CorrectLoopIsClean) { loop(GetParam(), kNone).expect_clean(); }

TEST_P(TsanProofOfLoop, EveryDroppedWaitIsReported) {
  for (const std::string_view site : kLoopWaits) {
    SCOPED_TRACE(site);
    loop(GetParam(), site).expect_race();
  }
}

TEST(TsanProof, WhatTheHostLearnsLaterOrdersNothingBefore) { TsanChild(std::string(kLateHostArgument)).expect_race(); }

TEST(TsanProof, LookingAtAMarkOrdersNothing) { TsanChild(std::string(kMarkArgument)).expect_race(); }

TEST(TsanProof, ACopyOfAKnownSizeIsSeen) { TsanChild(std::string(kCopyArgument)).expect_race(); }

}  // namespace
}  // namespace strake::test

int main(int argc, char** argv) {
  using strake::test::kLoopArgument;
  if (argc == 2 && std::string_view(argv[1]).starts_with(kLoopArgument)) {
    return strake::test::run_loop(std::string_view(argv[1]).substr(kLoopArgument.size()));
  }
  if (argc == 2 && std::string_view(argv[1]) == strake::test::kLateHostArgument) return strake::test::run_late_host();
  if (argc == 2 && std::string_view(argv[1]) == strake::test::kCopyArgument) return strake::test::run_copy();
  if (argc == 2 && std::string_view(argv[1]) == strake::test::kMarkArgument) return strake::test::run_mark();
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
