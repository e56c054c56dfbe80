// The watch beside a training thread, with a roll call whose answers the test decides.
#include "launch/job/watch.h"

#include <gtest/gtest.h>

#include <csignal>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace strake::launch {
namespace {

using std::chrono::milliseconds;
using namespace std::chrono_literals;

// Ranks that answer what is in `answers`, and no others.
class ScriptedRollCall final : public comm::RollCall {
 public:
  struct Script {
    int ranks = 2;
    std::map<int, std::string> answers;
    bool lower_rank_asks = false;  // just before
    bool peer_said_why = false;
    std::mutex mutex;
    std::vector<std::string> told;
  };
  ScriptedRollCall(int rank, std::shared_ptr<Script> script) : rank_(rank), script_(std::move(script)) {}

  int rank() const override { return rank_; }
  int size() const override { return script_->ranks; }
  void serve(const Handlers& handlers) override {
    if (script_->lower_rank_asks) handlers.asked(rank_ - 1);
    if (script_->peer_said_why) handlers.told(1 - rank_, "said why it ends the job");
  }
  void tell(int rank, std::string_view text) override {
    const std::lock_guard lock(script_->mutex);
    script_->told.push_back(std::to_string(rank) + ": " + std::string(text));
  }
  std::vector<std::optional<std::string>> ask(milliseconds limit, const Handlers& handlers) override {
    std::vector<std::optional<std::string>> answers(static_cast<std::size_t>(script_->ranks));
    answers[static_cast<std::size_t>(rank_)] = handlers.where();
    for (const auto& [rank, text] : script_->answers) answers[static_cast<std::size_t>(rank)] = text;
    for (const auto& answer : answers) {
      if (!answer.has_value()) std::this_thread::sleep_for(std::min(limit, 50ms));
    }
    return answers;
  }

 private:
  int rank_;
  std::shared_ptr<Script> script_;
};

class WatchTest : public testing::Test {
 protected:
  void start(int rank = 0, milliseconds limit = 0ms) {
    testing::internal::CaptureStderr();
    watch_ = std::make_unique<RankWatch>(RankWatch::Options{
        .rank = rank, .ranks = script_->ranks, .end_job = [this](int code) { end(code); }, .poll = 1ms});
    peers_ = std::make_unique<RankWatch::Peers>(*watch_, std::make_unique<ScriptedRollCall>(rank, script_));
    watch_->set_limit(limit);
  }
  void TearDown() override {
    peers_.reset();
    watch_.reset();
    ::alarm(0);
  }
  // What was said until the job was ended, and its code; -1 and what was said so far if it is not within `limit`.
  std::pair<int, std::string> ended(milliseconds limit = 20s) {
    std::future<int> code = ended_.get_future();
    const int value = code.wait_for(limit) == std::future_status::ready ? code.get() : -1;
    peers_.reset();  // the watch itself outlives the test's sections
    return {value, testing::internal::GetCapturedStderr()};
  }

  std::shared_ptr<ScriptedRollCall::Script> script_ = std::make_shared<ScriptedRollCall::Script>();
  std::unique_ptr<RankWatch> watch_;
  std::unique_ptr<RankWatch::Peers> peers_;

 private:
  void end(int code) {
    if (!std::exchange(has_ended_, true)) ended_.set_value(code);
  }
  std::promise<int> ended_;
  bool has_ended_ = false;
};

TEST_F(WatchTest, AStandstillIsAVerdictThatNamesWhoDoesNotAnswer) {
  start(0, 30ms);
  const auto outer = watch_->enter("start-up", Patience::kLong);
  const auto section = watch_->enter("step 12 on the device");
  const auto [code, said] = ended();
  EXPECT_EQ(code, 15);
  EXPECT_NE(said.find("rank 0: hang: nothing moves at: step 12 on the device"), std::string::npos) << said;
  EXPECT_NE(said.find("No answer from rank 1"), std::string::npos) << said;
  EXPECT_NE(said.find("run.hang_s"), std::string::npos) << said;
  EXPECT_EQ(script_->told.front(), "1: said why it ends the job");
}

TEST_F(WatchTest, AVerdictTellsWhereTheOthersAre) {
  script_->answers[1] = "held-out loss behind step 11, for 3 s";
  start(0, 30ms);
  const auto section = watch_->enter("step 12 on the device");
  const auto [code, said] = ended();
  EXPECT_EQ(code, 15);
  EXPECT_NE(said.find("Rank 1 is at: held-out loss behind step 11, for 3 s"), std::string::npos) << said;
  EXPECT_EQ(said.find("No answer"), std::string::npos) << said;
}

TEST_F(WatchTest, ProgressIsNoStandstill) {
  start(0, 1000ms);
  for (int i = 0; i < 300; ++i) {  // longer than the limit in all
    const auto section = watch_->enter("a step");
    std::this_thread::sleep_for(5ms);
  }
  EXPECT_EQ(ended(0ms).first, -1);
}

TEST_F(WatchTest, NoLimitIsNoVerdict) {
  start(0, 0ms);
  const auto section = watch_->enter("a step");
  EXPECT_EQ(ended(200ms).first, -1);
}

TEST_F(WatchTest, TheLowerRankThatHasNoticedSpeaks) {
  script_->lower_rank_asks = true;
  start(1, 20ms);
  const auto section = watch_->enter("a step");
  EXPECT_EQ(ended(300ms).first, -1);
}

TEST_F(WatchTest, SigtermIsARequestIfAllAnswer) {
  script_->answers[1] = "a step";
  start();
  EXPECT_EQ(watch_->asked_to_stop(), 0);
  watch_->at_step(7);
  ::raise(SIGTERM);
  while (watch_->asked_to_stop() == 0) std::this_thread::sleep_for(1ms);
  EXPECT_EQ(watch_->asked_to_stop(), SIGTERM);
  std::this_thread::sleep_for(300ms);
  const auto [code, said] = ended(0ms);
  EXPECT_EQ(code, -1);
  EXPECT_NE(said.find("SIGTERM on rank 0: stopping after step 9 at the latest, then a checkpoint"), std::string::npos)
      << said;
}

TEST_F(WatchTest, SigtermWithoutAnAnswerEndsWithoutASave) {
  start();
  watch_->durable(40);
  ::raise(SIGTERM);
  const auto [code, said] = ended();
  EXPECT_EQ(code, 16);
  EXPECT_NE(said.find("SIGTERM, and rank 1 does not answer"), std::string::npos) << said;
  EXPECT_NE(said.find("the last one is of step 40"), std::string::npos) << said;
}

// Of a peer that has said why, the launcher's SIGTERM is no news.
TEST_F(WatchTest, SigtermBehindAnErrorOfAPeerIsSilent) {
  script_->peer_said_why = true;
  start();
  std::this_thread::sleep_for(300ms);
  ::raise(SIGTERM);
  const auto [code, said] = ended();
  EXPECT_EQ(code, 16);
  EXPECT_EQ(said, "");
}

TEST_F(WatchTest, ARequestIsAcknowledgedOnceAndAtOnce) {
  start();
  watch_->at_step(3);
  ::raise(SIGUSR1);
  ::raise(SIGUSR1);
  std::this_thread::sleep_for(300ms);
  const auto [code, said] = ended(0ms);
  EXPECT_EQ(code, -1);
  const std::size_t at = said.find("SIGUSR1 on rank 0: stopping after step 5 at the latest");
  ASSERT_NE(at, std::string::npos) << said;
  EXPECT_EQ(said.find("SIGUSR1", at + 1), std::string::npos) << said;
  // It would take two of them, and behind mpirun none reaches a rank.
  EXPECT_EQ(said.find("Ctrl-C"), std::string::npos) << said;
}

TEST_F(WatchTest, AfterCtrlCTheSecondOneIsAnnounced) {
  start();
  watch_->at_step(3);
  ::raise(SIGINT);
  std::this_thread::sleep_for(300ms);
  const std::string said = ended(0ms).second;
  EXPECT_NE(said.find("at the latest, then a checkpoint; Ctrl-C once more to stop at once"), std::string::npos) << said;
}

// Steps may be shorter than a look: what the ranks have agreed on is said by who knows it first, once.
TEST_F(WatchTest, WhatTheRanksAgreedOnIsSaidOnce) {
  start();
  watch_->stops_behind(8, SIGUSR1, 1);
  ::raise(SIGUSR1);
  std::this_thread::sleep_for(300ms);
  const std::string said = ended(0ms).second;
  EXPECT_EQ(said, "strake: SIGUSR1 on rank 1: stopping after step 8, then a checkpoint\n");
}

// Its run is over, and has a code of its own.
TEST_F(WatchTest, SigtermToARankThatHasLeftChangesNothing) {
  start();
  peers_.reset();
  ::raise(SIGTERM);
  EXPECT_EQ(ended(100ms), std::pair(-1, std::string()));
}

TEST_F(WatchTest, AnotherRankLeavesTheWordToRankZero) {
  start(1);
  ::raise(SIGUSR1);
  std::this_thread::sleep_for(300ms);
  EXPECT_EQ(watch_->asked_to_stop(), SIGUSR1);
  EXPECT_EQ(ended(0ms).second, "");
  EXPECT_EQ(script_->told, std::vector<std::string>{"0: SIGUSR1"});
}

TEST_F(WatchTest, ARankThatIsAloneNeedsNoAnswers) {
  testing::internal::CaptureStderr();
  RankWatch watch({.rank = 0, .ranks = 1, .end_job = [](int) { FAIL(); }, .poll = 1ms});
  ::raise(SIGTERM);
  while (watch.asked_to_stop() == 0) std::this_thread::sleep_for(1ms);
  std::this_thread::sleep_for(300ms);
  EXPECT_NE(testing::internal::GetCapturedStderr().find("SIGTERM: stopping before the first step"), std::string::npos);
}

}  // namespace
}  // namespace strake::launch
