// Proof that ThreadSanitizer sees what the streams promise, and nothing more: the three-stream loop is clean,
// and with any one wait left out it is reported, also when the host is so slow that the race never shows in
// time ("masked"). If the plumbing of streams, events or test wrappers ordered anything by luck, the masked
// cases would pass unseen.
//
// Each case is a child process, because a report cannot be taken back.

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>
#include <cstring>
#include <iostream>
#include <string>
#include <string_view>

#include "runtime/device/cpu/cpu_device.h"
#include "tests/runtime/device/three_stream_loop.h"
#include "tests/support/faulty_device.h"

namespace strake::test {
namespace {

constexpr std::string_view kLoopArgument = "--loop=";
constexpr std::string_view kNone = "none", kPunctual = "punctual", kMasked = "masked", kJitter = "jitter";
constexpr int kRaceExitCode = 66;

// --loop=<timing>:<site of the wait to drop, or none>
int run_loop(std::string_view argument) {
  const auto colon = argument.find(':');
  const std::string_view timing = argument.substr(0, colon), site = argument.substr(colon + 1);
  const auto cpu = make_cpu_device();
  FaultyDevice device(*cpu, /*seed=*/11);
  if (site != kNone) device.faults().wait_to_drop = site;
  if (timing == kMasked) {
    device.faults().delays.push_back({.fixed = std::chrono::microseconds(300), .where = Delay::Where::kHost});
  } else if (timing == kJitter) {
    device.faults().delays.push_back({.random = std::chrono::microseconds(300)});
  }
  ThreeStreamLoop loop(device);
  const std::int64_t first = loop.run(40);
  if (site == kNone && first != ThreeStreamLoop::expected(40)) return 1;
  return 0;
}

class TsanProof : public testing::TestWithParam<std::string_view> {
 protected:
  struct Outcome {
    int exit_code;
    std::string output;
  };
  static Outcome child(std::string_view timing, std::string_view site) {
    const std::string command = "TSAN_OPTIONS='halt_on_error=0 exitcode=" + std::to_string(kRaceExitCode) + "' /proc/" +
                                std::to_string(getpid()) + "/exe '" + std::string(kLoopArgument) + std::string(timing) +
                                ":" + std::string(site) + "' 2>&1";
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

INSTANTIATE_TEST_SUITE_P(Timings, TsanProof, testing::Values(kPunctual, kMasked, kJitter),
                         [](const auto& timing) { return std::string(timing.param); });

TEST_P(TsanProof, CorrectLoopIsClean) {
  const Outcome outcome = child(GetParam(), kNone);
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_EQ(outcome.output, "");
}

TEST_P(TsanProof, EveryDroppedWaitIsReported) {
  for (const std::string_view site : kLoopWaits) {
    const Outcome outcome = child(GetParam(), site);
    EXPECT_EQ(outcome.exit_code, kRaceExitCode) << site << "\n" << outcome.output;
    EXPECT_NE(outcome.output.find("ThreadSanitizer: data race"), std::string::npos) << site;
  }
}

}  // namespace
}  // namespace strake::test

int main(int argc, char** argv) {
  using strake::test::kLoopArgument;
  if (argc == 2 && std::string_view(argv[1]).starts_with(kLoopArgument)) {
    return strake::test::run_loop(std::string_view(argv[1]).substr(kLoopArgument.size()));
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
