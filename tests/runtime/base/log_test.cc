#include "runtime/base/log.h"

#include <gtest/gtest.h>

#include <string>

namespace strake {
namespace {

std::string said(const Logger& log, void (*say)(const Logger&)) {
  ::testing::internal::CaptureStderr();
  say(log);
  return ::testing::internal::GetCapturedStderr();
}

void everything(const Logger& log) {
  log.debug("d{}", 1);
  log.info("i{}", 2);
  log.warning("w{}", 3);
  log.error("e{}", 4);
}

TEST(Logger, RankZeroSaysInfoOthersWarnings) {
  EXPECT_EQ(said(Logger(0, 4), everything), "strake: i2\nstrake: [rank 0] warning: w3\nstrake: [rank 0] error: e4\n");
  EXPECT_EQ(said(Logger(3, 4), everything), "strake: [rank 3] warning: w3\nstrake: [rank 3] error: e4\n");
}

TEST(Logger, ASingleRankHasNoNumber) {
  EXPECT_EQ(said(Logger(), everything), "strake: i2\nstrake: warning: w3\nstrake: error: e4\n");
}

TEST(Logger, TheLevelCanBeChosen) {
  EXPECT_EQ(
      said(Logger(1, 2, LogLevel::kDebug), everything),
      "strake: [rank 1] debug: d1\nstrake: [rank 1] i2\nstrake: [rank 1] warning: w3\nstrake: [rank 1] error: e4\n");
  EXPECT_EQ(said(Logger(0, 2, LogLevel::kError), everything), "strake: [rank 0] error: e4\n");
}

TEST(Logger, EveryLineOfATextHasThePrefix) {
  EXPECT_EQ(Logger(1, 2).format(LogLevel::kWarning, "a\nb"),
            "strake: [rank 1] warning: a\nstrake: [rank 1] warning: b\n");
}

TEST(Logger, AStampStandsInEveryLine) {
  EXPECT_EQ(Logger().format(LogLevel::kInfo, "a\nb", "12:00:01"), "strake: 12:00:01 a\nstrake: 12:00:01 b\n");
}

TEST(Logger, MessagesGoToTheSink) {
  struct Sink : LogSink {
    void message(const Logger& from, LogLevel level, std::string_view text) override {
      got += from.format(level, text, "now");
    }
    std::string got;
  } sink;
  EXPECT_EQ(said(Logger(1, 2).to(sink), everything), "");
  EXPECT_EQ(sink.got, "strake: now [rank 1] warning: w3\nstrake: now [rank 1] error: e4\n");
}

}  // namespace
}  // namespace strake
