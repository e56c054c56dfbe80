// What a run keeps, when, and how the next start goes on from it, through the real program.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/directory.h"
#include "data/data_cursor.h"
#include "runtime/base/error.h"
#include "tests/integration/program_job.h"

namespace strake::test {
namespace {

class Keep : public testing::TestWithParam<int> {
 protected:
  ProgramEnd train(const std::string& name, std::vector<std::string> words) {
    words.insert(words.begin(), {"checkpoint.every=auto", "eval.every=0"});
    return job_.train(GetParam(), name, words);
  }
  std::vector<std::int64_t> committed(const std::string& name) const {
    PosixFiles files;
    const auto folder = launch::checkpoint_folder(job_.run_folder(name));
    return files.is_directory(folder) ? checkpoint::committed_steps(files, folder) : std::vector<std::int64_t>();
  }
  checkpoint::Meta meta(const std::string& name, std::int64_t step) const {
    PosixFiles files;
    return checkpoint::read_manifest(files, job_.checkpoint(name, step)).meta;
  }
  std::int64_t next_sample(const std::string& name, std::int64_t step) const {
    return data::cursor_from_json(meta(name, step).data_cursor).next_sample;
  }

  ProgramJob job_;
};

TEST_P(Keep, TheLastStepOfARunThatEnds) {
  const ProgramEnd end = train("run", {"train.steps=7"});
  EXPECT_EQ(end.exit_code, 0) << end.output;
  EXPECT_EQ(committed("run"), std::vector<std::int64_t>{7});
  EXPECT_NE(end.output.find("checkpoint"), std::string::npos);

  const ProgramEnd none = train("none", {"train.steps=7", "checkpoint.at_end=false"});
  EXPECT_EQ(none.exit_code, 0) << none.output;
  EXPECT_TRUE(committed("none").empty());
  EXPECT_EQ(none.output.find("checkpoint written"), std::string::npos) << none.output;
  EXPECT_EQ(none.output.find("durable"), std::string::npos) << none.output;
}

TEST_P(Keep, TheNewestStepAfterAResumedRun) {
  EXPECT_EQ(train("run", {"train.stop_at=4"}).exit_code, 0);
  EXPECT_EQ(train("run", {}).exit_code, 0);
  EXPECT_EQ(committed("run"), (std::vector<std::int64_t>{ProgramJob::kSteps, 4}));
}

// By the clock of rank 0, at steps that all ranks agree on.
TEST_P(Keep, AStepEveryFewMinutes) {
  const ProgramEnd end = train("run", {"train.steps=200", "checkpoint.every_minutes=0.002", "debug.jitter_us=500"});
  EXPECT_EQ(end.exit_code, 0) << end.output;
  const std::vector<std::int64_t> steps = committed("run");
  EXPECT_GE(steps.size(), 3u) << end.output;
  EXPECT_EQ(steps.front(), 200);
}

TEST_P(Keep, NothingWhileItGoesOnIfAskedSo) {
  PosixFiles files;
  std::string config = read_file(files, job_.config_path(), 1 << 20);
  const std::string_view by_steps = "every = 3";
  config.replace(config.find(by_steps), by_steps.size(), "every_minutes = 0.001");
  std::ofstream(job_.config_path()) << config;
  EXPECT_EQ(train("run", {"checkpoint.every=0"}).exit_code, 0);
  EXPECT_EQ(committed("run"), std::vector<std::int64_t>{ProgramJob::kSteps});
}

// The held-out file cannot be read when its turn comes: what was trained is kept all the same.
TEST_P(Keep, AStepBeforeItsHeldOutLoss) {
  StrakeProgram program(
      GetParam(),
      job_.arguments("run", {"train.steps=60", "checkpoint.every=0", "eval.every=0", "debug.jitter_us=3000"}),
      job_.folder());
  while (job_.steps_done("run") < 1 && program.running()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  std::filesystem::resize_file(job_.job().val_tokens(), 1000);  // the file changes under the run
  const ProgramEnd end = program.wait();
  EXPECT_EQ(end.exit_code, static_cast<int>(ExitCode::kData)) << end.output;
  EXPECT_EQ(committed("run"), std::vector<std::int64_t>{60}) << end.output;
}

// Beside the newest: by the held-out loss of the very state that is kept, which its manifest has to the last bit.
TEST_P(Keep, TheBestByHeldOutLoss) {
  const ProgramEnd end = train("run", {"checkpoint.every=2", "eval.every=2", "checkpoint.keep=1",
                                       "checkpoint.keep_best=3", "checkpoint.strategy=lazy"});
  EXPECT_EQ(end.exit_code, 0) << end.output;
  std::vector<std::pair<double, std::int64_t>> losses;
  for (const launch::EvalMetrics& eval : job_.metrics("run").evals) losses.emplace_back(eval.val_loss, eval.step);
  ASSERT_EQ(losses.size(), 7u) << end.output;
  std::ranges::sort(losses);
  std::vector<std::int64_t> expected{ProgramJob::kSteps};
  for (const auto& [loss, step] : std::span(losses).first(3)) {
    if (step != ProgramJob::kSteps) expected.push_back(step);
    EXPECT_EQ(meta("run", step).held_out_loss, loss) << step;
  }
  std::ranges::sort(expected, std::greater());
  ASSERT_GT(expected.size(), 1u) << "the newest alone would show nothing";
  EXPECT_EQ(committed("run"), expected) << end.output;
}

TEST_P(Keep, StepsOfEverySoMany) {
  const ProgramEnd end =
      train("run", {"checkpoint.every=2", "checkpoint.keep=1", "checkpoint.keep_every=6", "train.steps=14"});
  EXPECT_EQ(end.exit_code, 0) << end.output;
  EXPECT_EQ(committed("run"), (std::vector<std::int64_t>{14, 12, 6}));
}

// A loss of an older state is none of this one; where nobody asks for the best, nothing comes before the checkpoint.
TEST_P(Keep, NoHeldOutLossOfAnotherState) {
  EXPECT_EQ(train("run", {"checkpoint.every=2", "eval.every=4", "checkpoint.keep_best=1", "train.stop_at=8"}).exit_code,
            0);
  EXPECT_FALSE(meta("run", 6).held_out_loss.has_value());
  EXPECT_TRUE(meta("run", 8).held_out_loss.has_value());
  EXPECT_EQ(train("plain", {"checkpoint.every=2", "eval.every=2", "train.stop_at=4"}).exit_code, 0);
  EXPECT_FALSE(meta("plain", 4).held_out_loss.has_value());
}

// A kill between a step's checkpoint and its held-out loss: the next start makes up for it.
TEST_P(Keep, AHeldOutLossThatAKillLeftOut) {
  EXPECT_EQ(train("run", {"train.stop_at=5", "eval.every=5"}).exit_code, 0);
  const auto path = launch::metrics_path(job_.run_folder("run"));
  std::ifstream in(path);
  std::string kept, lost;
  for (std::string line; std::getline(in, line);) (line.find("val_loss") == line.npos ? kept : lost) += line + "\n";
  in.close();
  ASSERT_FALSE(lost.empty());
  std::ofstream(path) << kept;
  EXPECT_EQ(train("run", {"train.stop_at=6", "eval.every=5"}).exit_code, 0);
  const launch::Metrics metrics = job_.metrics("run");
  ASSERT_FALSE(metrics.evals.empty());
  EXPECT_EQ(metrics.evals.front().step, 5);
  EXPECT_EQ(metrics.evals.front().val_loss, nlohmann::json::parse(lost).at("val_loss"));
}

// Samples go on where they stopped and tokens add up, whatever the batch was before.
TEST_P(Keep, TheCursorOverAChangeOfTheBatch) {
  EXPECT_EQ(train("run", {"train.stop_at=10", "train.global_batch=6"}).exit_code, 0);
  EXPECT_EQ(next_sample("run", 10), 60);
  const ProgramEnd end = train("run", {"train.stop_at=12", "train.global_batch=24", "optimizer.learning_rate=1e-2"});
  EXPECT_EQ(end.exit_code, 0) << end.output;
  EXPECT_EQ(next_sample("run", 12), 60 + 2 * 24);
  EXPECT_EQ(meta("run", 12).tokens, (60 + 2 * 24) * 16);
  for (const char* said : {"train.global_batch: 6 -> 24", "optimizer.learning_rate: 0.02 -> 0.01",
                           "learning rate of step 11: ", "samples go on at 60, 24 a step instead of 6"}) {
    EXPECT_NE(end.output.find(said), std::string::npos) << said << "\n" << end.output;
  }
  // And again: from the sum, not from the steps.
  EXPECT_EQ(train("run", {"train.stop_at=13", "train.global_batch=6"}).exit_code, 0);
  EXPECT_EQ(next_sample("run", 13), 60 + 2 * 24 + 6);

  // The same samples as a run that had them one after the other: the loss of step 11 is that of a batch of 24 there.
  const ProgramEnd same = train("run", {"train.stop_at=14"});
  EXPECT_EQ(same.exit_code, 0) << same.output;
  EXPECT_EQ(next_sample("run", 14), 60 + 2 * 24 + 6 + 12);
}

TEST_P(Keep, WhatOrdersTheSamplesStays) {
  EXPECT_EQ(train("run", {"train.stop_at=4"}).exit_code, 0);
  const ProgramEnd end = train("run", {"run.seed=9"});
  EXPECT_EQ(end.exit_code, static_cast<int>(ExitCode::kConfig)) << end.output;
  EXPECT_NE(end.output.find("run.seed = 1 and train.sequence = 16"), std::string::npos) << end.output;
}

TEST_P(Keep, NothingIsSaidToHaveChangedWhereNothingHas) {
  EXPECT_EQ(train("run", {"train.stop_at=4"}).exit_code, 0);
  const ProgramEnd end = train("run", {"train.stop_at=4"});
  EXPECT_EQ(end.output.find("changed since"), std::string::npos) << end.output;
}

std::string name_of_ranks(const testing::TestParamInfo<int>& ranks) { return ranks.param == 0 ? "Alone" : "TwoRanks"; }
INSTANTIATE_TEST_SUITE_P(Program, Keep, testing::Values(0, 2), name_of_ranks);

}  // namespace
}  // namespace strake::test
