// ProgramJob: a small job for the real program: its config file, its run folders, and what a run leaves there.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <string>
#include <vector>

#include "checkpoint/directory.h"
#include "launch/run/metrics.h"
#include "launch/run/run_folder.h"
#include "tests/integration/small_job.h"
#include "tests/integration/strake_program.h"

namespace strake::test {

class ProgramJob {
 public:
  static constexpr std::int64_t kSteps = 14;
  static constexpr std::int64_t kGlobalBatch = 12;  // 2 ranks: accumulation 2

  ProgramJob() {
    std::ofstream file(config_path());
    file << "[model]\nlayers = 2\nchannels = 16\nheads = 2\n"
         << "[data]\ntrain = \"" << job_.train_tokens().string() << "\"\nval = \"" << job_.val_tokens().string()
         << "\"\n[train]\nsteps = " << kSteps << "\nglobal_batch = " << kGlobalBatch
         << "\nmicro_batch = 3\nsequence = 16\n"
         << "[optimizer]\nlearning_rate = 2e-2\nmin_learning_rate = 2e-3\nwarmup_steps = 2\nclip_norm = 0.5\n"
         << "[comm]\nbucket_mib = 0.008\n[checkpoint]\nevery = 3\nkeep = 100\n[eval]\nevery = 5\nbatches = 3\n";
  }

  SmallJob& job() { return job_; }
  std::filesystem::path folder() const { return job_.folder(); }
  std::filesystem::path config_path() const { return job_.folder() / "job.toml"; }
  std::filesystem::path run_folder(const std::string& name) const { return job_.folder() / name; }
  std::filesystem::path checkpoint(const std::string& name, std::int64_t step) const {
    return launch::checkpoint_folder(run_folder(name)) / checkpoint::step_name(step);
  }

  std::vector<std::string> arguments(const std::string& name, const std::vector<std::string>& overrides) const {
    std::vector<std::string> arguments{"train", config_path().string(), "run.dir=" + run_folder(name).string()};
    arguments.insert(arguments.end(), overrides.begin(), overrides.end());
    return arguments;
  }
  ProgramEnd train(int ranks, const std::string& name, const std::vector<std::string>& overrides = {},
                   ProgramLimits limits = {}) const {
    return StrakeProgram::run(ranks, arguments(name, overrides), folder(), limits);
  }

  launch::Metrics metrics(const std::string& name) const {
    PosixFiles files;
    return launch::read_metrics(files, launch::metrics_path(run_folder(name)));
  }
  // Steps so far; 0 before the first line.
  std::int64_t steps_done(const std::string& name) const {
    PosixFiles files;
    if (!files.exists(launch::metrics_path(run_folder(name)))) return 0;
    const launch::Metrics metrics = this->metrics(name);
    return metrics.steps.empty() ? 0 : metrics.steps.back().step;
  }

 private:
  SmallJob job_;
};

// Losses, learning rates, gradient norms and held-out losses of every step, all digits.
inline void expect_equal_metrics(const launch::Metrics& metrics, const launch::Metrics& expected) {
  ASSERT_EQ(metrics.steps.size(), expected.steps.size());
  ASSERT_EQ(metrics.steps.back().step, expected.steps.back().step);
  for (const launch::StepMetrics& mine : metrics.steps) {
    const auto found = std::find_if(expected.steps.begin(), expected.steps.end(),
                                    [&](const launch::StepMetrics& other) { return other.step == mine.step; });
    ASSERT_NE(found, expected.steps.end()) << "step " << mine.step;
    const launch::StepMetrics& other = *found;
    EXPECT_EQ(mine.loss, other.loss) << "step " << mine.step;
    EXPECT_EQ(mine.grad_norm, other.grad_norm) << "step " << mine.step;
    EXPECT_EQ(mine.learning_rate, other.learning_rate) << "step " << mine.step;
  }
  for (const launch::EvalMetrics& other : expected.evals) {
    bool found = false;
    for (const launch::EvalMetrics& mine : metrics.evals) {
      if (mine.step != other.step) continue;
      found = true;
      EXPECT_EQ(mine.val_loss, other.val_loss) << "held-out loss at step " << mine.step;
    }
    EXPECT_TRUE(found) << "no held-out loss at step " << other.step;
  }
}

// Every byte of the ranks' files (parameters and both moments), and what goes with them: cursor, tokens, shapes.
inline void expect_equal_checkpoints(const std::filesystem::path& mine, const std::filesystem::path& other) {
  PosixFiles files;
  checkpoint::Manifest manifest = checkpoint::verify_checkpoint(files, mine);
  const checkpoint::Manifest expected = checkpoint::verify_checkpoint(files, other);
  manifest.meta.attempt = expected.meta.attempt;
  manifest.meta.choices = expected.meta.choices;  // among them a measured rate
  manifest.meta.config = expected.meta.config;    // among it the run's folder
  EXPECT_EQ(manifest.meta.data_cursor, expected.meta.data_cursor);
  EXPECT_TRUE(manifest == expected) << "manifests of " << mine << " and " << other << " differ";
  for (const checkpoint::FileRecord& file : expected.files) {
    EXPECT_TRUE(read_file(files, mine / file.name, 1 << 30) == read_file(files, other / file.name, 1 << 30))
        << file.name << " differs";
  }
}

}  // namespace strake::test
