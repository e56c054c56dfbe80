// A run that was cut, stopped or killed and started again ends where the uncut run ends, bit for bit: weights,
// optimizer state, data cursor and every later loss. Fresh processes each time.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <csignal>
#include <random>
#include <thread>

#include "runtime/base/error.h"
#include "tests/integration/program_job.h"
#include "tests/support/gate.h"

namespace strake::test {
namespace {

constexpr int kRanks = 2;
constexpr std::int64_t kSteps = ProgramJob::kSteps;

// Delays change no bit; they make a run long enough to be met in the middle.
const std::string kSlow = "debug.jitter_us=4000";

int exit_code(ExitCode code) { return static_cast<int>(code); }

class Resume : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    shared_job = new ProgramJob;
    const ProgramEnd end = shared_job->train(kRanks, "uncut");
    ASSERT_EQ(end.exit_code, 0) << end.output;
  }
  static void TearDownTestSuite() { delete shared_job; }

  void finish(const std::string& name, const std::vector<std::string>& overrides = {"checkpoint.resume=true"}) {
    const ProgramEnd end = job_.train(kRanks, name, overrides);
    EXPECT_EQ(end.exit_code, 0) << end.output;
  }
  void expect_like_uncut(const std::string& name) {
    expect_equal_metrics(job_.metrics(name), job_.metrics("uncut"));
    expect_equal_checkpoints(job_.checkpoint(name, kSteps), job_.checkpoint("uncut", kSteps));
  }

  static inline ProgramJob* shared_job = nullptr;
  ProgramJob& job_ = *shared_job;
};

TEST_F(Resume, TheUncutRunIsThatOfThreads) {
  std::vector<std::string> overrides{"run.dir=" + job_.run_folder("threads").string()};
  const launch::Config config = launch::load_config(job_.config_path(), overrides);
  const std::vector<RankOutcome> threads = run_threads(config, kRanks, [](int, const RunRank& run) {
    const auto device = make_cpu_device();
    run({.device = device.get()});
  });
  EXPECT_EQ(threads.front().steps.size(), static_cast<std::size_t>(kSteps));
  expect_like_uncut("threads");
  const launch::Metrics uncut = job_.metrics("uncut");
  EXPECT_LT(uncut.steps.back().loss, uncut.steps.front().loss - 0.1);  // of a training that moves
}

// A batch of 3 sequences of 16 tokens on each of 2 ranks: eval.batches is shared out.
TEST_F(Resume, AHeldOutLossSaysOverHowManyTokensItIs) {
  const launch::Metrics uncut = job_.metrics("uncut");
  ASSERT_FALSE(uncut.evals.empty());
  for (const launch::EvalMetrics& eval : uncut.evals) EXPECT_EQ(eval.tokens, 1 * 3 * 16 * kRanks) << eval.step;
}

TEST_F(Resume, CutAtAnyStep) {
  for (const std::int64_t cut : {1, 6, 8, 13}) {  // before, at, between and after the regular checkpoints
    const std::string name = "cut-" + std::to_string(cut);
    const ProgramEnd end = job_.train(kRanks, name, {"train.stop_at=" + std::to_string(cut)});
    EXPECT_EQ(end.exit_code, 0) << end.output;
    EXPECT_EQ(job_.steps_done(name), cut);
    finish(name);
    expect_like_uncut(name);
    EXPECT_EQ(job_.metrics(name).highest_attempt, 2);
  }
}

// The runs above take the default. A run that was begun by one strategy goes on by another.
TEST_F(Resume, CutAtAnyStepByEveryStrategy) {
  const std::vector<std::string> strategies{"sync", "pinned", "lazy", "device"};
  for (const std::int64_t cut : {1, 6, 8, 13}) {
    for (std::size_t i = 0; i < strategies.size(); ++i) {
      const std::string name = fmt::format("{}-{}", strategies[i], cut);
      SCOPED_TRACE(name);
      const ProgramEnd end = job_.train(
          kRanks, name, {fmt::format("train.stop_at={}", cut), "checkpoint.strategy=" + strategies[i], kSlow});
      EXPECT_EQ(end.exit_code, 0) << end.output;
      EXPECT_EQ(job_.steps_done(name), cut);
      finish(name, {"checkpoint.resume=true", "checkpoint.strategy=" + strategies[(i + 1) % strategies.size()]});
      expect_like_uncut(name);
    }
  }
}

TEST_F(Resume, CutAgainAndAgain) {
  for (const std::int64_t cut : {2, 3, 7, 11}) {
    const ProgramEnd end = job_.train(kRanks, "pieces", {"train.stop_at=" + std::to_string(cut)});
    EXPECT_EQ(end.exit_code, 0) << end.output;
  }
  finish("pieces");
  expect_like_uncut("pieces");
  EXPECT_EQ(job_.metrics("pieces").highest_attempt, 5);
}

TEST_F(Resume, WithOtherBucketsAndNoOverlap) {
  job_.train(kRanks, "other", {"train.stop_at=5"});
  finish("other", {"comm.overlap=false", "comm.bucket_mib=10", kSlow});
  expect_like_uncut("other");
}

TEST_F(Resume, AfterKillingAllRanks) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937_64 random(seed);
  constexpr int kKills = 8;
  constexpr std::array kStrategies{"lazy", "pinned", "device", "sync"};
  for (int kill = 0; kill < kKills; ++kill) {
    const std::string strategy = std::string("checkpoint.strategy=") + kStrategies[static_cast<std::size_t>(kill) / 2];
    StrakeProgram program(kRanks, job_.arguments("killed", {kSlow, strategy}), job_.folder());
    const bool while_saving = kill % 2 == 1;
    if (while_saving) {
      // A checkpoint is being written: its folder has its temporary name.
      const auto saving = [&] {
        PosixFiles files;
        const auto folder = launch::checkpoint_folder(job_.run_folder("killed"));
        if (!files.is_directory(folder)) return false;
        for (const std::string& name : files.list(folder)) {
          if (name.find(".tmp-") != std::string::npos) return true;
        }
        return false;
      };
      EXPECT_TRUE(wait_until([&] { return saving() || !program.running(); }));
    } else {
      const std::int64_t from = job_.steps_done("killed");
      const std::int64_t further = static_cast<std::int64_t>(random() % 4);
      EXPECT_TRUE(wait_until([&] { return job_.steps_done("killed") >= from + further || !program.running(); }));
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 20'000));
    }
    program.kill_ranks();
    const ProgramEnd end = program.wait();
    EXPECT_FALSE(end.hung) << end.output;
  }
  finish("killed", {});
  expect_like_uncut("killed");
}

// Grouped heads, rotary positions and what backward makes again, killed, stopped and resumed with other policies and
// other overlap: the bits of one straight run that keeps everything.
TEST_F(Resume, OfALlamaThatRecomputes) {
  const auto llama = [](std::vector<std::string> more) {
    more.insert(more.begin(), {"model.kind=llama", "model.heads=4", "model.kv_heads=2"});
    return more;
  };
  const ProgramEnd uncut = job_.train(kRanks, "llama uncut", llama({}));
  ASSERT_EQ(uncut.exit_code, 0) << uncut.output;
  {
    StrakeProgram program(kRanks, job_.arguments("llama", llama({"train.recompute=block", kSlow})), job_.folder());
    EXPECT_TRUE(wait_until([&] { return job_.steps_done("llama") >= 4 || !program.running(); }));
    program.kill_ranks();
    EXPECT_NE(program.wait().exit_code, 0);
  }
  {
    StrakeProgram program(
        kRanks, job_.arguments("llama", llama({"train.recompute=norm_activation", "comm.overlap=false", kSlow})),
        job_.folder());
    const std::int64_t from = job_.steps_done("llama");
    EXPECT_TRUE(wait_until([&] { return job_.steps_done("llama") > from || !program.running(); }));
    program.send(SIGUSR1);
    const ProgramEnd end = program.wait();
    EXPECT_EQ(end.exit_code, exit_code(ExitCode::kPreempted)) << end.output;
  }
  EXPECT_LT(job_.steps_done("llama"), kSteps);
  finish("llama", llama({"train.recompute=block", "comm.bucket_mib=10", "checkpoint.resume=true"}));
  EXPECT_EQ(job_.metrics("llama").highest_attempt, 3);
  expect_equal_metrics(job_.metrics("llama"), job_.metrics("llama uncut"));
  expect_equal_checkpoints(job_.checkpoint("llama", kSteps), job_.checkpoint("llama uncut", kSteps));
}

// Each rank keeps its own pieces of the optimizer: killed and stopped, the bits of the run in which all keep all.
TEST_F(Resume, OfShards) {
  const auto sharded = [](std::vector<std::string> more) {
    more.insert(more.begin(), "train.shard=optimizer");
    return more;
  };
  const ProgramEnd uncut = job_.train(kRanks, "sharded uncut", sharded({}));
  ASSERT_EQ(uncut.exit_code, 0) << uncut.output;
  expect_equal_metrics(job_.metrics("sharded uncut"), job_.metrics("uncut"));
  {
    StrakeProgram program(kRanks, job_.arguments("sharded", sharded({kSlow})), job_.folder());
    EXPECT_TRUE(wait_until([&] { return job_.steps_done("sharded") >= 4 || !program.running(); }));
    program.kill_ranks();
    EXPECT_NE(program.wait().exit_code, 0);
  }
  {
    StrakeProgram program(kRanks, job_.arguments("sharded", sharded({"comm.overlap=false", kSlow})), job_.folder());
    const std::int64_t from = job_.steps_done("sharded");
    EXPECT_TRUE(wait_until([&] { return job_.steps_done("sharded") > from || !program.running(); }));
    program.send(SIGUSR1);
    const ProgramEnd end = program.wait();
    EXPECT_EQ(end.exit_code, exit_code(ExitCode::kPreempted)) << end.output;
  }
  EXPECT_LT(job_.steps_done("sharded"), kSteps);
  finish("sharded", sharded({"checkpoint.resume=true"}));
  EXPECT_EQ(job_.metrics("sharded").highest_attempt, 3);
  expect_equal_metrics(job_.metrics("sharded"), job_.metrics("uncut"));
  expect_equal_checkpoints(job_.checkpoint("sharded", kSteps), job_.checkpoint("sharded uncut", kSteps));
}

// Four ranks' pieces become one rank's whole, and two ranks' pieces again.
TEST_F(Resume, OfShardsByAnotherNumberOfRanks) {
  const launch::Metrics uncut = job_.metrics("uncut");
  const auto leg = [&](int ranks, const std::string& stop_at) {
    return job_.train(ranks, "resharded", {"train.shard=optimizer", "train.micro_batch=1", "train.stop_at=" + stop_at});
  };
  for (const auto& [ranks, stop_at] : {std::pair(4, "5"), std::pair(0, "9"), std::pair(2, "0")}) {
    const ProgramEnd end = leg(ranks, stop_at);
    ASSERT_EQ(end.exit_code, 0) << end.output;
  }
  const launch::Metrics metrics = job_.metrics("resharded");
  ASSERT_EQ(metrics.steps.size(), uncut.steps.size());
  EXPECT_EQ(metrics.highest_attempt, 3);
  for (std::size_t i = 0; i < metrics.steps.size(); ++i) {
    EXPECT_NEAR(metrics.steps[i].loss, uncut.steps[i].loss, 2e-6 * uncut.steps[i].loss) << "step " << i + 1;
  }
  PosixFiles files;
  const checkpoint::Manifest mine = checkpoint::verify_checkpoint(files, job_.checkpoint("resharded", kSteps));
  const checkpoint::Manifest other = checkpoint::verify_checkpoint(files, job_.checkpoint("uncut", kSteps));
  EXPECT_EQ(mine.meta.data_cursor, other.meta.data_cursor);
  EXPECT_EQ(mine.meta.tokens, other.meta.tokens);
}

TEST_F(Resume, AfterAStopOnRequest) {
  for (const int ranks : {0, kRanks}) {
    const std::string name = "stopped-" + std::to_string(ranks);
    // One rank alone computes four micro-batches a step: another cell, with an uncut run of its own.
    const std::string uncut = ranks == 0 ? "uncut alone" : "uncut";
    if (ranks == 0) {
      EXPECT_EQ(job_.train(0, uncut).exit_code, 0);
    }
    StrakeProgram program(ranks, job_.arguments(name, {kSlow}), job_.folder());
    EXPECT_TRUE(wait_until([&] { return job_.steps_done(name) >= 2 || !program.running(); }));
    program.send(ranks == 0 ? SIGINT : SIGUSR1);
    const ProgramEnd end = program.wait();
    EXPECT_EQ(end.exit_code, exit_code(ExitCode::kPreempted)) << end.output;
    EXPECT_TRUE(end.errors().empty()) << end.output;
    const std::int64_t stopped_at = job_.steps_done(name);
    EXPECT_GE(stopped_at, 2);
    EXPECT_LT(stopped_at, kSteps);
    EXPECT_TRUE(std::filesystem::exists(job_.checkpoint(name, stopped_at))) << end.output;

    const ProgramEnd again = job_.train(ranks, name);
    EXPECT_EQ(again.exit_code, 0) << again.output;
    expect_equal_metrics(job_.metrics(name), job_.metrics(uncut));
    expect_equal_checkpoints(job_.checkpoint(name, kSteps), job_.checkpoint(uncut, kSteps));
  }
}

// Another number of ranks: the same weights, moments and samples, summed in another order.
TEST_F(Resume, WithAnotherNumberOfRanks) {
  const launch::Metrics uncut = job_.metrics("uncut");
  double largest = 0;
  for (const int ranks : {0, 1, 3, 4}) {
    const std::string name = "resized-" + std::to_string(ranks);
    job_.train(kRanks, name, {"train.stop_at=7"});
    const ProgramEnd end = job_.train(ranks, name, {"checkpoint.resume=true", "train.micro_batch=1"});
    EXPECT_EQ(end.exit_code, 0) << end.output;
    const launch::Metrics metrics = job_.metrics(name);
    ASSERT_EQ(metrics.steps.size(), uncut.steps.size());
    for (std::size_t i = 0; i < metrics.steps.size(); ++i) {
      const double difference = std::abs(metrics.steps[i].loss - uncut.steps[i].loss) / uncut.steps[i].loss;
      if (i < 7) {
        EXPECT_EQ(difference, 0) << "step " << i + 1;
      }
      largest = std::max(largest, difference);
      EXPECT_LT(difference, 2e-6) << ranks << " ranks, step " << i + 1;
    }
    PosixFiles files;
    const checkpoint::Manifest mine = checkpoint::verify_checkpoint(files, job_.checkpoint(name, kSteps));
    const checkpoint::Manifest other = checkpoint::verify_checkpoint(files, job_.checkpoint("uncut", kSteps));
    EXPECT_EQ(mine.meta.data_cursor, other.meta.data_cursor);
    EXPECT_EQ(mine.meta.tokens, other.meta.tokens);
    EXPECT_EQ(mine.meta.world_size, std::max(ranks, 1));
  }
  std::printf("largest relative difference of a loss after a change of ranks: %.2g\n", largest);
}

TEST_F(Resume, OfAFinishedRunDoesNothing) {
  const launch::Metrics before = job_.metrics("uncut");
  finish("uncut");
  EXPECT_EQ(job_.metrics("uncut").steps.size(), before.steps.size());
  EXPECT_EQ(job_.metrics("uncut").highest_attempt, before.highest_attempt);
}

TEST_F(Resume, FollowsTheRule) {
  const ProgramEnd refused = job_.train(kRanks, "uncut", {"checkpoint.resume=false"});
  EXPECT_EQ(refused.exit_code, exit_code(ExitCode::kConfig)) << refused.output;
  const ProgramEnd missing = job_.train(kRanks, "never-started", {"checkpoint.resume=true"});
  EXPECT_EQ(missing.exit_code, exit_code(ExitCode::kNoCheckpoint)) << missing.output;
  expect_equal_checkpoints(job_.checkpoint("uncut", kSteps), job_.checkpoint("uncut", kSteps));
}

}  // namespace
}  // namespace strake::test
