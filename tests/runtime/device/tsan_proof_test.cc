// Proof that ThreadSanitizer sees what the streams promise, and nothing more: the three-stream loop is clean,
// and with any one wait left out it is reported, also when host or streams are so slow that the race never
// shows in time. If the plumbing of streams, events or test wrappers ordered anything by luck, such masked
// cases would pass unseen.
//
// Each case is a child process, because a report cannot be taken back.

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>
#include <thread>

#include "runtime/device/cpu/cpu_device.h"
#include "tests/runtime/device/three_stream_loop.h"
#include "tests/support/faulty_device.h"
#include "tests/support/gate.h"

namespace strake::test {
namespace {

constexpr std::string_view kLoopArgument = "--loop=";
constexpr std::string_view kNone = "none", kPunctual = "punctual", kSlowHost = "slow_host", kJitter = "jitter",
                           kSlowCompute = "slow_compute", kSlowComm = "slow_comm";
constexpr std::string_view kLateHostArgument = "--late-host", kCopyArgument = "--copy";
constexpr int kRaceExitCode = 66;
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

// Two threads copy to the same place a size that the compiler knows.
int run_copy() {
  std::array<char, 256> a{}, b{}, both{};
  std::thread other([&] { std::memcpy(both.data(), a.data(), both.size()); });
  std::memcpy(both.data(), b.data(), both.size());
  other.join();
  return both[0];
}

class TsanProof : public testing::Test {
 protected:
  struct Outcome {
    int exit_code;
    std::string output;
  };
  static Outcome loop(std::string_view timing, std::string_view site) {
    return child(std::string(kLoopArgument) + std::string(timing) + ":" + std::string(site));
  }
  static Outcome child(const std::string& argument) {
    const std::string command = "TSAN_OPTIONS='halt_on_error=0 exitcode=" + std::to_string(kRaceExitCode) + "' /proc/" +
                                std::to_string(getpid()) + "/exe '" + argument + "' 2>&1";
    FILE* pipe = popen(command.c_str(), "r");
    Outcome outcome{-1, {}};
    if (pipe == nullptr) return outcome;
    char buffer[4096];
    while (const std::size_t got = fread(buffer, 1, sizeof buffer, pipe)) outcome.output.append(buffer, got);
    const int status = pclose(pipe);
    if (WIFEXITED(status)) outcome.exit_code = WEXITSTATUS(status);
    return outcome;
  }
};

class TsanProofOfLoop : public TsanProof, public testing::WithParamInterface<std::string_view> {};

INSTANTIATE_TEST_SUITE_P(Timings, TsanProofOfLoop,
                         testing::Values(kPunctual, kSlowHost, kJitter, kSlowCompute, kSlowComm),
                         [](const auto& timing) { return std::string(timing.param); });

TEST_P(TsanProofOfLoop, CorrectLoopIsClean) {
  const Outcome outcome = loop(GetParam(), kNone);
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_EQ(outcome.output, "");
}

TEST_P(TsanProofOfLoop, EveryDroppedWaitIsReported) {
  for (const std::string_view site : kLoopWaits) {
    const Outcome outcome = loop(GetParam(), site);
    EXPECT_EQ(outcome.exit_code, kRaceExitCode) << site << "\n" << outcome.output;
    EXPECT_NE(outcome.output.find("ThreadSanitizer: data race"), std::string::npos) << site;
  }
}

TEST_F(TsanProof, WhatTheHostLearnsLaterOrdersNothingBefore) {
  const Outcome outcome = child(std::string(kLateHostArgument));
  EXPECT_EQ(outcome.exit_code, kRaceExitCode) << outcome.output;
  EXPECT_NE(outcome.output.find("ThreadSanitizer: data race"), std::string::npos);
}

TEST_F(TsanProof, ACopyOfAKnownSizeIsSeen) {
  const Outcome outcome = child(std::string(kCopyArgument));
  EXPECT_EQ(outcome.exit_code, kRaceExitCode) << outcome.output;
  EXPECT_NE(outcome.output.find("ThreadSanitizer: data race"), std::string::npos);
}

}  // namespace
}  // namespace strake::test

int main(int argc, char** argv) {
  using strake::test::kLoopArgument;
  if (argc == 2 && std::string_view(argv[1]).starts_with(kLoopArgument)) {
    return strake::test::run_loop(std::string_view(argv[1]).substr(kLoopArgument.size()));
  }
  if (argc == 2 && std::string_view(argv[1]) == strake::test::kLateHostArgument) return strake::test::run_late_host();
  if (argc == 2 && std::string_view(argv[1]) == strake::test::kCopyArgument) return strake::test::run_copy();
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
