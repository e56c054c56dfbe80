// Asking a run to stop, and taking a rank or the whole job away, at random moments: what is done is kept, what is said
// is true, and the run goes on to the bits of one that nobody touched.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>
#include <thread>

#include "checkpoint/directory.h"
#include "runtime/base/error.h"
#include "tests/integration/program_job.h"

namespace strake::test {
namespace {

constexpr int kRanks = 2;
// At random moments, others at every call of the suite; STRAKE_TEST_TRIALS says how many of each kind.
const int kTrials = [] {
  const char* const asked = std::getenv("STRAKE_TEST_TRIALS");
  return asked == nullptr ? 6 : std::stoi(asked);
}();
constexpr std::int64_t kSteps = 400;

int exit_code(ExitCode code) { return static_cast<int>(code); }

bool wait_until(const std::function<bool()>& done) {
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!done()) {
    if (std::chrono::steady_clock::now() > give_up) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(500));
  }
  return true;
}

class Stop : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    job_ = new ProgramJob;
    const ProgramEnd end = job_->train(kRanks, "straight", keys());
    ASSERT_EQ(end.exit_code, 0) << end.output;
  }
  static void TearDownTestSuite() {
    delete job_;
    job_ = nullptr;
  }

  // Long enough that a signal meets it at work; checkpoints only where something asks for one.
  static std::vector<std::string> keys() {
    return {"train.steps=" + std::to_string(kSteps), "checkpoint.every=0", "eval.every=100", "log.every=1000"};
  }

  Stop() { SCOPED_TRACE(testing::Message() << "seed " << seed_); }

  // The moment of trial `trial`: the first ones fall into the start, the others behind a random step.
  void wait_for_a_moment(StrakeProgram& program, const std::string& name, int trial) {
    EXPECT_TRUE(wait_until([&] { return program.ranks_handle(SIGUSR1, kRanks) || !program.running(); }));
    if (trial >= kTrials / 4) {
      const auto step = static_cast<std::int64_t>(random_() % (kSteps / 2));
      EXPECT_TRUE(wait_until([&] { return job_->steps_done(name) >= step || !program.running(); }));
    }
    std::this_thread::sleep_for(std::chrono::microseconds(random_() % (trial < kTrials / 4 ? 400'000 : 20'000)));
  }

  // Behind the third step.
  static std::vector<pid_t> ranks_at_work(StrakeProgram& program, const std::string& name) {
    EXPECT_TRUE(wait_until([&] { return job_->steps_done(name) >= 3 || !program.running(); }));
    return program.rank_processes();
  }

  std::vector<std::int64_t> committed(const std::string& name) const {
    PosixFiles files;
    const auto folder = launch::checkpoint_folder(job_->run_folder(name));
    return files.is_directory(folder) ? checkpoint::committed_steps(files, folder) : std::vector<std::int64_t>();
  }

  void expect_resumes_to_the_straight_run(const std::string& name) {
    const ProgramEnd end = job_->train(kRanks, name, keys());
    EXPECT_EQ(end.exit_code, 0) << end.output;
    expect_equal_metrics(job_->metrics(name), job_->metrics("straight"));
    expect_equal_checkpoints(job_->checkpoint(name, kSteps), job_->checkpoint("straight", kSteps));
  }

  static ProgramJob* job_;
  const std::uint64_t seed_ = std::random_device{}();
  std::mt19937_64 random_{seed_};
};

ProgramJob* Stop::job_ = nullptr;

TEST_F(Stop, OnRequestNoStepIsLost) {
  int asked = 0;
  for (int trial = 0; trial < kTrials; ++trial) {
    SCOPED_TRACE(testing::Message() << "trial " << trial << ", seed " << seed_);
    const std::string name = "asked-" + std::to_string(trial);
    StrakeProgram program(kRanks, job_->arguments(name, keys()), job_->folder());
    wait_for_a_moment(program, name, trial);
    program.send(SIGUSR1);
    const ProgramEnd end = program.wait();
    const std::int64_t done = job_->steps_done(name);
    if (done == kSteps && end.exit_code == 0) {  // it was faster than this process
      std::filesystem::remove_all(job_->run_folder(name));
      continue;
    }
    ++asked;
    ASSERT_EQ(end.exit_code, exit_code(ExitCode::kPreempted)) << end.output;
    EXPECT_TRUE(end.errors().empty()) << end.output;
    EXPECT_NE(end.output.find("SIGUSR1 on rank "), std::string::npos) << end.output;
    if (done == 0) {
      EXPECT_TRUE(committed(name).empty());
    } else {
      EXPECT_EQ(committed(name), std::vector<std::int64_t>{done}) << end.output;
    }
    expect_resumes_to_the_straight_run(name);
    std::filesystem::remove_all(job_->run_folder(name));
  }
  EXPECT_GE(asked, kTrials / 2) << "runs end before they can be asked: make them longer";
}

// mpirun passes SIGTERM on a second late (odls_base_sigkill_timeout), kills a second after that, and returns 1 whatever
// the ranks return.
TEST_F(Stop, BySigtermToMpirunWhatIsLostIsWhatIsSaid) {
  int kept_all = 0;
  for (int trial = 0; trial < kTrials; ++trial) {
    SCOPED_TRACE(testing::Message() << "trial " << trial << ", seed " << seed_);
    const std::string name = "terminated-" + std::to_string(trial);
    std::vector<std::string> slow = keys();
    slow.push_back("debug.jitter_us=400");  // the second until it reaches the ranks must not see the end of the run
    StrakeProgram program(kRanks, job_->arguments(name, slow), job_->folder());
    wait_for_a_moment(program, name, trial);
    program.send(SIGTERM);
    const ProgramEnd end = program.wait();
    EXPECT_FALSE(end.hung) << end.output;
    const std::int64_t done = job_->steps_done(name);
    const std::vector<std::int64_t> kept = committed(name);
    if (end.output.find(fmt::format("the checkpoint of step {} is durable", done)) != std::string::npos) {
      EXPECT_EQ(kept, std::vector<std::int64_t>{done}) << end.output;
      ++kept_all;
    } else if (done > 0 && done < kSteps) {
      // Not enough time, and no word of success.
      EXPECT_TRUE(kept.empty() || kept == std::vector<std::int64_t>{done}) << end.output;
    }
    expect_resumes_to_the_straight_run(name);
    std::filesystem::remove_all(job_->run_folder(name));
  }
  // The save takes a few milliseconds of the second that there is.
  EXPECT_GE(kept_all, kTrials / 2);
}

TEST_F(Stop, AfterTheDeathOfARankNoSaveStarts) {
  for (int trial = 0; trial < kTrials; ++trial) {
    SCOPED_TRACE(testing::Message() << "trial " << trial << ", seed " << seed_);
    const std::string name = "bereft-" + std::to_string(trial);
    StrakeProgram program(kRanks, job_->arguments(name, keys()), job_->folder());
    wait_for_a_moment(program, name, trial);
    const std::vector<pid_t> ranks = program.rank_processes();
    const std::int64_t before = job_->steps_done(name);
    if (ranks.size() == kRanks) ::kill(ranks[random_() % kRanks], SIGKILL);
    const ProgramEnd end = program.wait();
    EXPECT_FALSE(end.hung) << end.output;
    EXPECT_NE(end.exit_code, 0) << end.output;
    EXPECT_LT(job_->steps_done(name), before + kSteps / 2) << "it went on";
    const auto folder = launch::checkpoint_folder(job_->run_folder(name));
    if (std::filesystem::is_directory(folder)) {
      for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        EXPECT_FALSE(entry.path().filename().string().starts_with("step-")) << entry.path() << "\n" << end.output;
      }
    }
    std::filesystem::remove_all(job_->run_folder(name));
  }
}

// The other rank's writer waits for the dead one's vote: the job ends all the same, and goes on from what was durable.
TEST_F(Stop, ADeathWhileACheckpointIsWrittenLosesNoneBefore) {
  const std::vector<std::string> strategies{"lazy", "pinned", "device"};
  for (int trial = 0; trial < kTrials / 2; ++trial) {
    const std::string name = fmt::format("torn-{}", trial);
    SCOPED_TRACE(testing::Message() << name << ", seed " << seed_);
    std::vector<std::string> words = keys();
    words.insert(words.end(), {"checkpoint.every=2", "checkpoint.strategy=" + strategies[trial % strategies.size()]});
    StrakeProgram program(kRanks, job_->arguments(name, words), job_->folder());
    const auto folder = launch::checkpoint_folder(job_->run_folder(name));
    const auto writing = [&] {
      PosixFiles files;
      return files.is_directory(folder) && std::ranges::any_of(files.list(folder), [](const std::string& entry) {
               return entry.find(".tmp-") != std::string::npos;
             });
    };
    const std::int64_t from = static_cast<std::int64_t>(random_() % 20);
    EXPECT_TRUE(wait_until([&] { return (job_->steps_done(name) >= from && writing()) || !program.running(); }));
    const std::vector<pid_t> ranks = program.rank_processes();
    if (ranks.size() == kRanks) ::kill(ranks[random_() % kRanks], SIGKILL);
    const ProgramEnd end = program.wait();
    EXPECT_FALSE(end.hung) << end.output;
    EXPECT_NE(end.exit_code, 0) << end.output;
    PosixFiles files;
    for (const std::int64_t step : committed(name)) checkpoint::verify_checkpoint(files, job_->checkpoint(name, step));
    expect_resumes_to_the_straight_run(name);
    std::filesystem::remove_all(job_->run_folder(name));
  }
}

TEST_F(Stop, ASecondInterruptEndsAtOnceWithItsOwnCode) {
  StrakeProgram program(0, job_->arguments("interrupted", keys()), job_->folder());
  EXPECT_TRUE(wait_until([&] { return program.ranks_handle(SIGINT, 1) || !program.running(); }));
  // One after the other is seen: two at once may count as one.
  program.send(SIGINT);
  EXPECT_TRUE(wait_until([&] { return program.output().find("SIGINT: stopping") != std::string::npos; }));
  program.send(SIGINT);
  const ProgramEnd end = program.wait();
  // It may have finished its checkpoint first.
  EXPECT_TRUE(end.exit_code == 130 || end.exit_code == exit_code(ExitCode::kPreempted)) << end.output;
}

TEST_F(Stop, SigtermOfAPlainRunKeepsItsStep) {
  StrakeProgram program(0, job_->arguments("plain", {"train.steps=20000", "checkpoint.every=0", "eval.every=0"}),
                        job_->folder());
  EXPECT_TRUE(wait_until([&] { return job_->steps_done("plain") >= 3 || !program.running(); }));
  program.send(SIGTERM);
  program.send(SIGTERM);  // once more changes nothing
  const ProgramEnd end = program.wait();
  EXPECT_EQ(end.exit_code, exit_code(ExitCode::kPreempted)) << end.output;
  EXPECT_EQ(committed("plain"), std::vector<std::int64_t>{job_->steps_done("plain")});
}

// The last step was done: it was not cut short, and nothing is left to do.
TEST_F(Stop, ARunWhoseLastStepIsDoneIsDone) {
  StrakeProgram program(0, job_->arguments("late", {"train.steps=2", "eval.every=0", "debug.jitter_us=60000"}),
                        job_->folder());
  EXPECT_TRUE(wait_until([&] { return job_->steps_done("late") >= 1 || !program.running(); }));
  program.send(SIGUSR1);
  const ProgramEnd end = program.wait();
  EXPECT_EQ(end.exit_code, 0) << end.output;
  EXPECT_EQ(committed("late"), std::vector<std::int64_t>{2});
}

// What comes after the last word does not change how the run ended.
TEST_F(Stop, SignalsBehindTheEndChangeNothing) {
  for (const int ranks : {0, kRanks}) {
    for (const int signal : {SIGUSR1, SIGTERM}) {
      SCOPED_TRACE(testing::Message() << ranks << " ranks, signal " << signal);
      const std::string name = "over-" + std::to_string(ranks) + "-" + std::to_string(signal);
      StrakeProgram program(ranks, job_->arguments(name, {"train.steps=12", "checkpoint.every=0", "eval.every=0"}),
                            job_->folder());
      EXPECT_TRUE(
          wait_until([&] { return program.output().find("done: ") != std::string::npos || !program.running(); }));
      while (program.running()) {
        if (ranks == 0) {
          program.send(signal);
        } else {
          for (const pid_t rank : program.rank_processes()) ::kill(rank, signal);
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      const ProgramEnd end = program.wait();
      EXPECT_EQ(end.exit_code, 0) << end.signal << "\n" << end.output;
    }
  }
}

TEST_F(Stop, AClosedTerminalKeepsTheStep) {
  StrakeProgram program(0, job_->arguments("hung-up", {"train.steps=20000", "checkpoint.every=0", "eval.every=0"}),
                        job_->folder());
  EXPECT_TRUE(wait_until([&] { return job_->steps_done("hung-up") >= 3 || !program.running(); }));
  program.send(SIGHUP);
  EXPECT_EQ(program.wait().exit_code, exit_code(ExitCode::kPreempted));
  EXPECT_EQ(committed("hung-up"), std::vector<std::int64_t>{job_->steps_done("hung-up")});
}

// --- ranks that stand still ---

// Before the ranks have compared their configurations.
TEST_F(Stop, ARankThatStandsStillAtTheStartEndsTheJob) {
  std::vector<std::string> words = keys();
  words.insert(words.end(), {"run.hang_s=0.5", "train.steps=100000"});
  StrakeProgram program(kRanks, job_->arguments("early", words), job_->folder());
  EXPECT_TRUE(wait_until([&] { return program.ranks_handle(SIGUSR1, kRanks) || !program.running(); }));
  const std::vector<pid_t> ranks = program.rank_processes();
  ASSERT_EQ(ranks.size(), 2u);
  ::kill(ranks[1], SIGSTOP);
  const ProgramEnd end = program.wait(std::chrono::seconds(60));
  EXPECT_FALSE(end.hung) << end.output;
  EXPECT_EQ(end.exit_code, exit_code(ExitCode::kHang)) << end.output;
}

TEST_F(Stop, AStoppedRankEndsTheJobWithAVerdict) {
  std::vector<std::string> words = keys();
  words.insert(words.end(), {"run.hang_s=2", "train.steps=100000"});
  StrakeProgram program(kRanks, job_->arguments("stands", words), job_->folder());
  const std::vector<pid_t> ranks = ranks_at_work(program, "stands");
  ASSERT_EQ(ranks.size(), 2u);
  ::kill(ranks[1], SIGSTOP);
  const ProgramEnd end = program.wait(std::chrono::seconds(60));
  EXPECT_FALSE(end.hung);
  EXPECT_EQ(end.exit_code, exit_code(ExitCode::kHang)) << end.output;
  bool named = false;
  for (const std::string& line : end.errors()) {
    // What waits for rank 1: a collective that may have begun before it stopped, or the exchange behind a step.
    named |=
        ((line.starts_with("rank 0: hang: nothing moves at: step ") && line.find("all-reduce'") != std::string::npos) ||
         line.starts_with("rank 0: hang: nothing moves at: exchange between ranks behind step ")) &&
        line.find("No answer from rank 1") != std::string::npos && line.find("run.hang_s") != std::string::npos;
  }
  EXPECT_TRUE(named) << end.output;
}

// Its peer waits in a proxy thread, of which neither the training thread nor the streams know.
TEST_F(Stop, AStoppedRankOfStagedOnesEndsTheJobWithAVerdict) {
  std::vector<std::string> words = keys();
  words.insert(words.end(), {"run.hang_s=2", "train.steps=100000", "comm.backend=staged"});
  StrakeProgram program(kRanks, job_->arguments("stands-staged", words), job_->folder());
  const std::vector<pid_t> ranks = ranks_at_work(program, "stands-staged");
  ASSERT_EQ(ranks.size(), 2u);
  ::kill(ranks[1], SIGSTOP);
  const ProgramEnd end = program.wait(std::chrono::seconds(60));
  EXPECT_FALSE(end.hung);
  EXPECT_EQ(end.exit_code, exit_code(ExitCode::kHang)) << end.output;
  EXPECT_NE(end.output.find("No answer from rank 1"), std::string::npos) << end.output;
}

TEST_F(Stop, AKilledRankOfStagedOnesEndsTheJob) {
  std::vector<std::string> words = keys();
  words.insert(words.end(), {"train.steps=100000", "comm.backend=staged"});
  StrakeProgram program(kRanks, job_->arguments("dies-staged", words), job_->folder());
  const std::vector<pid_t> ranks = ranks_at_work(program, "dies-staged");
  ASSERT_EQ(ranks.size(), 2u);
  ::kill(ranks[1], SIGKILL);
  const ProgramEnd end = program.wait(std::chrono::seconds(60));
  EXPECT_FALSE(end.hung);
  EXPECT_NE(end.exit_code, 0) << end.output;
}

TEST_F(Stop, AShortStandstillIsNoHang) {
  std::vector<std::string> words = keys();
  words.push_back("run.hang_s=30");
  StrakeProgram program(kRanks, job_->arguments("pauses", words), job_->folder());
  const std::vector<pid_t> ranks = ranks_at_work(program, "pauses");
  ASSERT_EQ(ranks.size(), 2u);
  ::kill(ranks[0], SIGSTOP);
  std::this_thread::sleep_for(std::chrono::seconds(3));
  ::kill(ranks[0], SIGCONT);
  const ProgramEnd end = program.wait();
  EXPECT_EQ(end.exit_code, 0) << end.output;
  expect_equal_metrics(job_->metrics("pauses"), job_->metrics("straight"));
}

}  // namespace
}  // namespace strake::test
