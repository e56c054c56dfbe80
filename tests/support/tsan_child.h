// TsanChild: this program, run again with one argument to have a race, which ThreadSanitizer reports as it ends. A
// child process, because a report cannot be taken back.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <string>

namespace strake::test {

class TsanChild {
 public:
  explicit TsanChild(const std::string& argument) {
    const std::string command = "TSAN_OPTIONS='halt_on_error=0 exitcode=" + std::to_string(kRaceExitCode) + "' /proc/" +
                                std::to_string(getpid()) + "/exe \"" + argument + "\" 2>&1";
    FILE* pipe = popen(command.c_str(), "r");
    if (pipe == nullptr) return;
    char buffer[4096];
    while (const std::size_t got = fread(buffer, 1, sizeof buffer, pipe)) output_.append(buffer, got);
    const int status = pclose(pipe);
    if (WIFEXITED(status)) exit_code_ = WEXITSTATUS(status);
  }

  void expect_clean() const {
    EXPECT_EQ(exit_code_, 0) << output_;
    EXPECT_EQ(output_.find("ThreadSanitizer"), std::string::npos) << output_;
  }
  void expect_race() const {
    EXPECT_EQ(exit_code_, kRaceExitCode) << output_;
    EXPECT_NE(output_.find("ThreadSanitizer: data race"), std::string::npos) << output_;
  }

 private:
  static constexpr int kRaceExitCode = 66;
  int exit_code_ = -1;
  std::string output_;
};

}  // namespace strake::test
