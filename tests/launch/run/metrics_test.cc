#include "launch/run/metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>

#include "runtime/base/error.h"
#include "tests/support/faulty_files.h"
#include "tests/support/memory_files.h"

namespace strake::launch {
namespace {

using std::chrono::nanoseconds;

StepMetrics step_metrics(std::int64_t step, std::int64_t attempt = 1) {
  StepMetrics metrics{step, attempt, 0.1f, 1.0 / 3, 2.5, 1234.4, 0.25, nanoseconds(1'234'567), {}};
  for (std::size_t i = 0; i < kStepClasses; ++i) metrics.durations[i] = nanoseconds(1000 * (i + 1));
  return metrics;
}

std::string contents(Files& files) { return read_file(files, "/m", 1 << 20); }

TEST(Metrics, HasTheDocumentedFields) {
  test::MemoryFiles files;
  MetricsFile(files, "/m").append(step_metrics(7, 2));
  const auto json = nlohmann::json::parse(contents(files));
  EXPECT_EQ(json["step"], 7);
  EXPECT_EQ(json["attempt"], 2);
  EXPECT_EQ(json["loss"].get<float>(), 0.1f);
  EXPECT_EQ(json["lr"].get<double>(), 1.0 / 3);
  EXPECT_EQ(json["grad_norm"], 2.5);
  EXPECT_EQ(json["tokens_per_s"], 1234.0);
  EXPECT_EQ(json["mfu"], 0.25);
  EXPECT_EQ(json["step_ms"], 1.234567);
  const char* classes[] = {"data_wait", "h2d",        "forward",  "backward", "exposed_comm",
                           "optimizer", "checkpoint", "host_gap", "other"};
  for (std::size_t i = 0; i < kStepClasses; ++i) {
    EXPECT_EQ(json[std::string(classes[i]) + "_ms"].get<double>(), static_cast<double>(i + 1) / 1000) << classes[i];
  }
  EXPECT_EQ(json.size(), 8 + kStepClasses);
}

TEST(Metrics, ComeBackAsWritten) {
  test::MemoryFiles files;
  {
    MetricsFile file(files, "/m");
    file.append(step_metrics(1));
    file.append(EvalMetrics{1, 1, 2.0625, 4096});
    file.append(step_metrics(2));
    file.append(CheckpointMetrics{.step = 1,
                                  .attempt = 1,
                                  .bytes = 4096,
                                  .waited_ms = 0.5,
                                  .returned_ms = 0.25,
                                  .snapshot_ms = 1.125,
                                  .durable_ms = 20.5});
  }
  const Metrics read = read_metrics(files, "/m");
  ASSERT_EQ(read.checkpoints.size(), 1u);
  EXPECT_EQ(read.checkpoints[0].step, 1);
  EXPECT_EQ(read.checkpoints[0].bytes, 4096u);
  EXPECT_EQ(read.checkpoints[0].waited_ms, 0.5);
  EXPECT_EQ(read.checkpoints[0].returned_ms, 0.25);
  EXPECT_EQ(read.checkpoints[0].snapshot_ms, 1.125);
  EXPECT_EQ(read.checkpoints[0].durable_ms, 20.5);
  ASSERT_EQ(read.steps.size(), 2u) << "a checkpoint's line is none of a step";
  ASSERT_EQ(read.evals.size(), 1u);
  EXPECT_EQ(read.highest_attempt, 1);
  EXPECT_EQ(read.steps[1].step, 2);
  EXPECT_EQ(read.steps[1].loss, static_cast<double>(0.1f));
  EXPECT_EQ(read.steps[1].learning_rate, 1.0 / 3);
  EXPECT_EQ(read.steps[1].wall, nanoseconds(1'234'567));
  EXPECT_EQ(read.steps[1].durations, step_metrics(2).durations);
  EXPECT_EQ(read.evals[0].val_loss, 2.0625);
  EXPECT_EQ(read.evals[0].tokens, 4096);
}

TEST(Metrics, EveryLineIsOneWrite) {
  test::MemoryFiles memory;
  test::FaultyFiles files(memory);
  MetricsFile file(files, "/m");
  const std::int64_t before = files.changing_calls();
  file.append(step_metrics(1));
  EXPECT_EQ(files.changing_calls(), before + 1);
}

TEST(Metrics, WritesNullForWhatIsNotFinite) {
  test::MemoryFiles files;
  StepMetrics metrics = step_metrics(1);
  metrics.loss = std::numeric_limits<double>::quiet_NaN();
  metrics.grad_norm = std::numeric_limits<double>::infinity();
  MetricsFile(files, "/m").append(metrics);
  EXPECT_TRUE(nlohmann::json::parse(contents(files))["loss"].is_null());
  EXPECT_TRUE(std::isnan(read_metrics(files, "/m").steps.at(0).loss));
}

// Of a step that another attempt did: its checkpoint knows what it measured, and nobody how long it took.
TEST(Metrics, TimesThatAreNotKnownAreNull) {
  test::MemoryFiles files;
  StepMetrics metrics = step_metrics(1);
  metrics.wall = nanoseconds(0);
  metrics.tokens_per_s = metrics.mfu = std::numeric_limits<double>::quiet_NaN();
  MetricsFile(files, "/m").append(metrics);
  const auto line = nlohmann::json::parse(contents(files));
  for (const char* name : {"step_ms", "data_wait_ms", "forward_ms", "other_ms", "tokens_per_s", "mfu"})
    EXPECT_TRUE(line.at(name).is_null()) << name;
  const StepMetrics read = read_metrics(files, "/m").steps.at(0);
  EXPECT_EQ(read.wall, nanoseconds(0));
  EXPECT_EQ(read.durations, StepDurations{});
  EXPECT_TRUE(std::isnan(read.tokens_per_s));
  EXPECT_EQ(read.loss, step_metrics(1).loss);
}

TEST(Metrics, AnyTornTailIsIgnoredByTheReaderAndCutByTheWriter) {
  test::MemoryFiles whole;
  {
    MetricsFile file(whole, "/m");
    file.append(step_metrics(1));
    file.append(step_metrics(2));
  }
  const std::string text = contents(whole);
  const std::size_t first = text.find('\n') + 1;
  for (std::size_t kept = 0; kept <= text.size(); ++kept) {
    test::MemoryFiles files;
    replace_file(files, "/m", text.substr(0, kept));
    const std::size_t lines = kept == text.size() ? 2 : kept >= first ? 1 : 0;
    ASSERT_EQ(read_metrics(files, "/m").steps.size(), lines) << kept;
    MetricsFile(files, "/m").append(step_metrics(9));
    const Metrics after = read_metrics(files, "/m");
    ASSERT_EQ(after.steps.size(), lines + 1) << kept;
    ASSERT_EQ(after.steps.back().step, 9) << kept;
  }
}

TEST(Metrics, ATailOfZerosIsCut) {  // what a power loss may leave
  test::MemoryFiles files;
  MetricsFile(files, "/m").append(step_metrics(1));
  const std::string good = contents(files);
  replace_file(files, "/m", good + std::string(100, '\0') + "\n\n");
  MetricsFile file(files, "/m");
  EXPECT_EQ(contents(files), good);
}

TEST(Metrics, OfRedoneStepsTheLastWins) {
  test::MemoryFiles files;
  MetricsFile file(files, "/m");
  for (const auto& [step, attempt] : {std::pair(1, 1), {2, 1}, {3, 1}, {2, 2}, {3, 2}, {3, 3}}) {
    file.append(step_metrics(step, attempt));
    file.append(EvalMetrics{step, attempt, 1.0 * attempt, 1});
  }
  const Metrics read = read_metrics(files, "/m");
  ASSERT_EQ(read.steps.size(), 3u);
  ASSERT_EQ(read.evals.size(), 3u);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(read.steps[static_cast<std::size_t>(i)].step, i + 1);
    EXPECT_EQ(read.steps[static_cast<std::size_t>(i)].attempt, i + 1);
    EXPECT_EQ(read.evals[static_cast<std::size_t>(i)].val_loss, i + 1.0);
  }
  EXPECT_EQ(read.highest_attempt, 3);
}

TEST(Metrics, ALineThatIsNotOursIsReportedWithItsPlace) {
  test::MemoryFiles files;
  MetricsFile(files, "/m").append(step_metrics(1));
  const std::size_t offset = contents(files).size();
  replace_file(files, "/m", contents(files) + "{\"hello\": 1}\n");
  try {
    read_metrics(files, "/m");
    FAIL() << "a line without step and attempt";
  } catch (const CorruptError& error) {
    EXPECT_EQ(error.offset_bytes, offset);
    EXPECT_NE(std::string(error.what()).find("/m: the line at byte"), std::string::npos) << error.what();
  }
}

TEST(Metrics, AFullDiskIsAnIoErrorAndTheNextAttemptCutsTheTornLine) {
  test::MemoryFiles memory;
  test::FaultyFiles files(memory);
  MetricsFile file(files, "/m");
  file.append(step_metrics(1));
  files.shorten_writes();
  files.fill_disk_at(files.changing_calls() + 2, ENOSPC);  // half a line is written, then nothing more
  EXPECT_THROW(file.append(step_metrics(2)), IoError);
  files.heal();
  EXPECT_EQ(read_metrics(files, "/m").steps.size(), 1u);
  MetricsFile(files, "/m").append(step_metrics(2, 2));
  EXPECT_EQ(read_metrics(files, "/m").steps.at(1).attempt, 2);
}

}  // namespace
}  // namespace strake::launch
