// `strake bench step`, the real program: what it says agrees with itself, and nothing is left behind.

#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <nlohmann/json.hpp>
#include <thread>

#include "runtime/base/error.h"
#include "tests/integration/bench_program.h"

namespace strake::test {
namespace {

using Json = nlohmann::json;

class BenchStep : public BenchProgram {
 protected:
  BenchStep() : BenchProgram("step") {}
};

TEST_P(BenchStep, MeasuresWhatWasAskedFor) {
  const ProgramEnd end = bench({"--warmup", "3", "--steps", "5", "--repeats", "2", "--json"});
  ASSERT_EQ(end.exit_code, 0) << end.output;
  const Json json = parse(end);
  EXPECT_EQ(json.at("format"), "strake-bench-step-1");
  EXPECT_EQ(json.at("warmup"), 3);
  EXPECT_EQ(json.at("steps"), 5);
  EXPECT_EQ(json.at("repeats"), 2);
  EXPECT_EQ(json.at("tokens_per_step"), ProgramJob::kGlobalBatch * 16);
  EXPECT_EQ(json.at("config").at("data").at("train"), job_.job().train_tokens().string());
  EXPECT_EQ(json.at("config").at("train").at("steps"), ProgramJob::kSteps) << "the config is the user's";
  EXPECT_EQ(json.at("config_hash").get<std::string>().size(), 16u);
  EXPECT_EQ(json.at("ranks").size(), expected_ranks());
  EXPECT_EQ(json.at("hosts"), 1);

  const Json& step = json.at("step_ms");
  EXPECT_EQ(step.at("repeats").size(), 2u);
  EXPECT_GT(step.at("low"), 0);
  EXPECT_LE(step.at("low"), step.at("p10"));
  EXPECT_LE(step.at("p10"), step.at("p90"));
  EXPECT_LE(step.at("p90"), step.at("high"));
  EXPECT_LE(step.at("low"), step.at("median"));
  EXPECT_LE(step.at("median"), step.at("high"));
  const double tokens_per_s = json.at("tokens_per_s");
  EXPECT_DOUBLE_EQ(tokens_per_s, json.at("tokens_per_step").get<double>() / (step.at("median").get<double>() / 1e3));
  EXPECT_DOUBLE_EQ(json.at("tokens_per_s_per_rank").get<double>() * static_cast<double>(expected_ranks()),
                   tokens_per_s);
  EXPECT_DOUBLE_EQ(json.at("mfu").get<double>(),
                   tokens_per_s * json.at("model_flops_per_token").get<double>() /
                       (json.at("peak_flops_per_rank").get<double>() * static_cast<double>(expected_ranks())));
  EXPECT_GT(json.at("breakdown_ms").at("forward"), 0);
  EXPECT_GT(json.at("breakdown_ms").at("backward"), 0);
  EXPECT_EQ(json.at("breakdown_ms").at("checkpoint"), 0) << "the file asks for checkpoints, the command line does not";
  EXPECT_EQ(json.at("breakdown_ms").at("other"), 0) << "and for held-out losses";
  EXPECT_EQ(json.at("comm").at("hidden_share").is_null(), expected_ranks() == 1);
  EXPECT_GT(json.at("comm").at("bytes"), 0);
  for (const Json& rank : json.at("ranks")) {
    EXPECT_GT(rank.at("device_memory_bytes"), 0);
    EXPECT_EQ(rank.at("memory").at("device_bytes"), rank.at("device_memory_bytes")) << "no driver takes a part of it";
    EXPECT_TRUE(rank.at("memory").at("driver_bytes").is_null());
    EXPECT_FALSE(rank.at("device").get<std::string>().empty());
  }
  EXPECT_FALSE(json.at("libraries").empty());
  EXPECT_TRUE(leftovers().empty()) << leftovers().front();
}

// Order, of medians that keep it: on each rank and in each step these times follow each other.
TEST_P(BenchStep, TellsWhereEachCollectiveLay) {
  for (const char* overlap : {"true", "false"}) {
    const ProgramEnd end = bench({"--warmup", "1", "--steps", "4", "--repeats", "1", "--json", "train.shard=optimizer",
                                  "comm.overlap=" + std::string(overlap)});
    ASSERT_EQ(end.exit_code, 0) << end.output;
    const Json json = parse(end);
    const Json& timeline = json.at("comm").at("timeline");
    const double backward_end = timeline.at("backward_end_ms");
    EXPECT_LT(timeline.at("backward_begin_ms"), backward_end);
    ASSERT_EQ(timeline.at("buckets").size(), json.at("comm").at("buckets"));
    std::int64_t bytes = 0, bytes_at_end = 0;
    double ready = timeline.at("backward_begin_ms"), reduced = 0;
    for (const Json& bucket : timeline.at("buckets")) {
      EXPECT_GE(bucket.at("ready_ms"), ready) << "gradients are final in the order of buckets";
      EXPECT_LE(bucket.at("ready_ms"), backward_end) << "overlap or not";
      EXPECT_GE(bucket.at("begin_ms"), std::max(bucket.at("ready_ms").get<double>(), reduced));
      EXPECT_GE(bucket.at("end_ms"), bucket.at("begin_ms"));
      EXPECT_GE(bucket.at("transfer_ms"), 0);
      if (bucket.at("final_at_end")) bytes_at_end += bucket.at("bytes").get<std::int64_t>();
      ready = bucket.at("ready_ms"), reduced = bucket.at("end_ms");
      bytes += bucket.at("bytes").get<std::int64_t>();
    }
    EXPECT_EQ(bytes, json.at("comm").at("bytes"));
    EXPECT_FALSE(timeline.at("buckets").front().at("final_at_end"));
    EXPECT_TRUE(timeline.at("buckets").back().at("final_at_end")) << "tables of tokens and positions";
    EXPECT_EQ(json.at("comm").at("bytes_at_end"), bytes_at_end);
    if (expected_ranks() > 1) {
      EXPECT_GT(timeline.at("buckets").back().at("exposed_ms"), 0) << "no backward is left to hide it";
      EXPECT_GT(json.at("comm").at("exposed_at_end_ms"), 0);
    }
    EXPECT_EQ(timeline.at("gathers").size(), expected_ranks() == 1 ? 0 : timeline.at("buckets").size());
    for (const Json& gather : timeline.at("gathers")) {
      EXPECT_LE(gather.at("ready_ms"), 0) << "updated in the step before";
      EXPECT_GE(gather.at("begin_ms"), gather.at("ready_ms"));
      EXPECT_GE(gather.at("end_ms"), gather.at("begin_ms"));
      EXPECT_GE(gather.at("needed_ms"), 0);
      EXPECT_LE(gather.at("needed_ms"), timeline.at("backward_begin_ms")) << "forward reads every weight";
      if (overlap == std::string("false")) {
        EXPECT_LE(gather.at("end_ms"), 0) << "all is gathered when the step begins";
        EXPECT_GE(timeline.at("buckets").front().at("begin_ms"), backward_end);
      }
    }
  }
}

// Rows of a split token table are no bucket, and the table is gathered first: forward begins with it.
TEST_P(BenchStep, TellsWhereRowsOfASplitTableLay) {
  if (expected_ranks() == 1) GTEST_SKIP() << "one rank splits nothing";
  const ProgramEnd end = bench({"--warmup", "1", "--steps", "4", "--repeats", "1", "--json", "train.shard=optimizer",
                                "comm.split_embedding=true"});
  ASSERT_EQ(end.exit_code, 0) << end.output;
  const Json comm = parse(end).at("comm");
  const Json &timeline = comm.at("timeline"), &rows = timeline.at("split_rows");
  ASSERT_EQ(timeline.at("buckets").size(), comm.at("buckets"));
  const std::int64_t tokens = ProgramJob::kGlobalBatch * 16;
  EXPECT_EQ(rows.at("bytes"), tokens * (16 + 1) * 4) << "of all ranks: 16 channels and an id";
  EXPECT_EQ(rows.at("final_at_end"), true);
  EXPECT_GE(rows.at("begin_ms"), timeline.at("buckets").back().at("end_ms"));
  EXPECT_GT(rows.at("exposed_ms"), 0);
  EXPECT_EQ(comm.at("bytes_at_end"),
            rows.at("bytes").get<std::int64_t>() + timeline.at("buckets").back().at("bytes").get<std::int64_t>())
      << "with positions";
  const Json& gathers = timeline.at("gathers");
  ASSERT_EQ(gathers.size(), timeline.at("buckets").size());
  EXPECT_EQ(gathers.front().at("bytes"), timeline.at("buckets").front().at("bytes"));
  for (std::size_t i = 1; i < gathers.size(); ++i) {
    EXPECT_GE(gathers[i].at("begin_ms"), gathers[i - 1].at("end_ms"));
    EXPECT_GE(gathers[i].at("needed_ms"), gathers.front().at("needed_ms"));
  }
}

TEST_P(BenchStep, MakesRandomTokensOfTheModelsVocabulary) {
  // The folder is named as a shell completes it.
  const ProgramEnd end = bench({"run.dir=" + job_.run_folder("run").string() + "/", "--random-data",
                                "model.vocab=70000", "--warmup", "1", "--steps", "1", "--repeats", "1", "--json"});
  ASSERT_EQ(end.exit_code, 0) << end.output;
  EXPECT_EQ(parse(end).at("config").at("data").at("train"), "random tokens");
  EXPECT_TRUE(leftovers().empty()) << leftovers().front();
}

// An empty data.train, and checkpoints by time, do not contradict what the bench sets itself.
TEST_P(BenchStep, SwitchesOffOnlyWhatTheCommandLineLeavesOut) {
  const ProgramEnd end = bench({"--random-data", "data.train=", "model.vocab=256", "checkpoint.every_minutes=7",
                                "--warmup", "1", "--steps", "1", "--repeats", "1", "--json"});
  ASSERT_EQ(end.exit_code, 0) << end.output;
  const Json config = parse(end).at("config");
  EXPECT_EQ(config.at("data").at("train"), "random tokens");
  EXPECT_EQ(config.at("checkpoint").at("every"), "auto");
  EXPECT_EQ(config.at("checkpoint").at("at_end"), false);
  EXPECT_EQ(config.at("eval").at("every"), 0);
  EXPECT_EQ(config.at("data").at("val"), "");
}

TEST_P(BenchStep, TalksToPeople) {
  const ProgramEnd end = bench({"--warmup", "1", "--steps", "2", "--repeats", "2"});
  ASSERT_EQ(end.exit_code, 0) << end.output;
  for (const char* part : {"bench step: ", "median of 2 x 2 steps", "tokens/s", "MFU", "breakdown", "config hash"}) {
    EXPECT_NE(end.output.find(part), std::string::npos) << "no '" << part << "' in:\n" << end.output;
  }
}

TEST_P(BenchStep, WritesCheckpointsAndHeldOutLossesIfAsked) {
  const ProgramEnd end = bench({"--warmup", "1", "--steps", "3", "--repeats", "1", "--json", "checkpoint.every=1",
                                "data.val=" + job_.job().val_tokens().string(), "eval.every=1"});
  ASSERT_EQ(end.exit_code, 0) << end.output;
  const Json json = parse(end);
  EXPECT_GT(json.at("breakdown_ms").at("checkpoint"), 0);
  EXPECT_GT(json.at("breakdown_ms").at("other"), 0);
  EXPECT_TRUE(leftovers().empty()) << leftovers().front();
}

// Sharded, so that weights are gathered; from the first step on, or in turn with real steps.
TEST_P(BenchStep, SendsNothingIfAsked) {
  const std::vector<std::string> common{"--warmup",  "2", "--steps", "3",
                                        "--repeats", "2", "--json",  "train.shard=optimizer"};
  std::vector<std::string> arguments = common;
  arguments.emplace_back("--stub-comm");
  const ProgramEnd end = bench(arguments);
  ASSERT_EQ(end.exit_code, 0) << end.output;
  const Json stubbed = parse(end);
  EXPECT_EQ(stubbed.at("stub_comm"), true);
  EXPECT_TRUE(stubbed.at("comm").at("hidden_share").is_null());
  EXPECT_GT(stubbed.at("comm").at("bytes"), 0) << "the schedule is the same";
  EXPECT_TRUE(stubbed.at("calibration").is_null());

  arguments.back() = "--calibrate";
  const ProgramEnd calibrated = bench(arguments);
  if (ranks() == 0) {
    EXPECT_EQ(calibrated.exit_code, static_cast<int>(ExitCode::kConfig)) << calibrated.output;
    EXPECT_NE(calibrated.output.find("one rank communicates with nobody"), std::string::npos) << calibrated.output;
    return;
  }
  ASSERT_EQ(calibrated.exit_code, 0) << calibrated.output;
  const Json json = parse(calibrated);
  EXPECT_EQ(json.at("stub_comm"), false);
  const Json& calibration = json.at("calibration");
  EXPECT_DOUBLE_EQ(calibration.at("step_ms").get<double>(), json.at("step_ms").at("median").get<double>());
  EXPECT_GT(calibration.at("stubbed_step_ms"), 0);
  EXPECT_DOUBLE_EQ(calibration.at("efficiency_loss").get<double>(),
                   1 - calibration.at("stubbed_step_ms").get<double>() / calibration.at("step_ms").get<double>());
  EXPECT_EQ(calibration.at("efficiency_losses").size(), 2u);
  EXPECT_DOUBLE_EQ(calibration.at("compute_dilation").get<double>(),
                   calibration.at("compute_ms").get<double>() / calibration.at("stubbed_compute_ms").get<double>());
  EXPECT_TRUE(leftovers().empty()) << leftovers().front();
}

TEST_P(BenchStep, WrongInputIsReportedOnce) {
  const struct {
    std::vector<std::string> arguments;
    ExitCode code;
    std::vector<std::string> parts;
  } cases[] = {
      {{"trian.steps=4"}, ExitCode::kConfig, {"trian.steps", "train.steps"}},
      {{"data.train=/nowhere.bin"}, ExitCode::kData, {"/nowhere.bin"}},
      {{"--random-data"}, ExitCode::kConfig, {"model.vocab", "set model.vocab"}},
      {{"train.sequence=10000"}, ExitCode::kData, {"train.sequence"}},
      {{"--stub-comm", "checkpoint.every=1"}, ExitCode::kConfig, {"--stub-comm", "checkpoint"}},
  };
  for (const auto& [arguments, code, parts] : cases) {
    const ProgramEnd end = bench(arguments);
    EXPECT_FALSE(end.hung);
    EXPECT_EQ(end.exit_code, static_cast<int>(code)) << end.output;
    ASSERT_EQ(end.errors().size(), 1u) << end.output;
    for (const std::string& part : parts) EXPECT_NE(end.errors()[0].find(part), std::string::npos) << end.errors()[0];
    EXPECT_TRUE(leftovers().empty()) << leftovers().front();
  }
}

// By all ranks together, so that rank 0 takes its folder with it.
TEST_P(BenchStep, StoppedItLeavesNothingBehind) {
  std::vector<std::string> arguments{
      "bench", "step", job_.config_path().string(), "run.dir=" + job_.run_folder("run").string(), "--steps", "1000000"};
  StrakeProgram program(GetParam(), arguments, job_.folder());
  while (program.running() && leftovers().empty()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  std::this_thread::sleep_for(std::chrono::milliseconds(200));  // most often in its steps
  program.send(SIGUSR1);
  const ProgramEnd end = program.wait();
  EXPECT_EQ(end.exit_code, static_cast<int>(ExitCode::kInterrupted)) << end.output;
  ASSERT_EQ(end.errors().size(), 1u) << end.output;
  EXPECT_NE(end.errors()[0].find("stopped by SIGUSR1: nothing was measured"), std::string::npos) << end.output;
  EXPECT_TRUE(leftovers().empty()) << leftovers().front();
}

INSTANTIATE_TEST_SUITE_P(Ranks, BenchStep, testing::Values(0, 2), ranks_name);

}  // namespace
}  // namespace strake::test
