// What the order checker says about the waits of a training run, said by ThreadSanitizer about the memory itself: a
// whole run is clean, and without any one of its waits there is a race.
//
// Each case is a child process, because a report cannot be taken back.

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <string>
#include <string_view>

#include "tests/integration/dropped_wait.h"

namespace strake::test {
namespace {

constexpr std::string_view kDropArgument = "--drop=";
constexpr int kRaceExitCode = 66;

struct Outcome {
  int exit_code = -1;
  std::string output;
};

Outcome child(const std::string& site) {
  const std::string command = "TSAN_OPTIONS='halt_on_error=0 exitcode=" + std::to_string(kRaceExitCode) + "' /proc/" +
                              std::to_string(getpid()) + "/exe \"" + std::string(kDropArgument) + site + "\" 2>&1";
  FILE* pipe = popen(command.c_str(), "r");
  Outcome outcome;
  if (pipe == nullptr) return outcome;
  char buffer[4096];
  while (const std::size_t got = fread(buffer, 1, sizeof buffer, pipe)) outcome.output.append(buffer, got);
  const int status = pclose(pipe);
  if (WIFEXITED(status)) outcome.exit_code = WEXITSTATUS(status);
  return outcome;
}

TEST(TrainingUnderTsan, IsClean) {
  const Outcome outcome = child("");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_EQ(outcome.output.find("ThreadSanitizer"), std::string::npos) << outcome.output;
}

class TrainingUnderTsanWithout : public testing::TestWithParam<const char*> {};

TEST_P(TrainingUnderTsanWithout, TheWaitHasARace) {
  const Outcome outcome = child(GetParam());
  EXPECT_EQ(outcome.exit_code, kRaceExitCode) << outcome.output;
  EXPECT_NE(outcome.output.find("ThreadSanitizer: data race"), std::string::npos) << outcome.output;
}

INSTANTIATE_TEST_SUITE_P(Sites, TrainingUnderTsanWithout, testing::ValuesIn(kWaitSites),
                         [](const auto& site) { return std::to_string(site.index); });

}  // namespace
}  // namespace strake::test

int main(int argc, char** argv) {
  using strake::test::kDropArgument;
  if (argc == 2 && std::string_view(argv[1]).starts_with(kDropArgument)) {
    strake::test::SmallJob job;
    // A slot's first use has no hazard; two passes of every site are behind it.
    strake::test::run_with_dropped_wait(job, argv[1] + kDropArgument.size(), 2);
    return 0;
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
