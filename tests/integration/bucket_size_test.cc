// comm.bucket_mib = auto: all ranks take one size, the run writes it down and keeps it, and no bit depends on it.

#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "launch/train/bucket_choice.h"
#include "tests/integration/program_job.h"

namespace strake::test {
namespace {

using Json = nlohmann::json;

// choices.bucket_size of the newest attempt.
Json bucket_size(const ProgramJob& job, const std::string& run) {
  PosixFiles files;
  const std::string text = read_file(files, job.run_folder(run) / "manifest.json", 1 << 20);
  return Json::parse(text).at("choices").at("bucket_size");
}

TEST(BucketChoice, TravelsAsJson) {
  const launch::BucketChoice sent{.mib = 0.37,
                                  .by = launch::BucketChoice::By::kMeasurement,
                                  .prediction = launch::BucketChoice::Prediction{
                                      .costs = {.alone = {{{1024, 0.25}, {4096, 0.5}}}, .beside = {{{1024, 2.5}}}},
                                      .dilation = 1.25,
                                      .exposed_ms = 1.5}};
  const std::optional<launch::BucketChoice> come = launch::BucketChoice::measured_from(sent.to_json());
  ASSERT_TRUE(come.has_value());
  EXPECT_EQ(come->mib, 0.37);
  EXPECT_EQ(come->prediction->exposed_ms, 1.5);
  EXPECT_EQ(come->prediction->dilation, 1.25);
  EXPECT_EQ(come->prediction->costs.alone.of(4096), 0.5);
  EXPECT_EQ(come->prediction->costs.beside.of(1024), 2.5);
  for (const char* other : {"", "[]", "{}", R"({"by":"config","mib":1})"}) {
    EXPECT_FALSE(launch::BucketChoice::measured_from(other).has_value()) << other;
  }
  const auto changed = [&](const char* key, const Json& value) {
    Json choice = Json::parse(sent.to_json());
    choice[key] = value;
    return choice.dump();
  };
  for (const Json& mib : {Json(0), Json(-1), Json(1e-9), Json(1e300), Json("1"), Json()}) {
    EXPECT_FALSE(launch::BucketChoice::measured_from(changed("mib", mib)).has_value()) << mib;
  }
  for (const char* list : {"[]", "{}", "3", "[3]", "[[1024]]", "[[1024,1,1]]", "[[0,1]]", "[[-1,1]]", "[[1024,0]]",
                           "[[1.5,1]]", R"([["1024",1]])"}) {
    for (const char* key : {"alone_ms", "beside_ms"}) {
      EXPECT_FALSE(launch::BucketChoice::measured_from(changed(key, Json::parse(list))).has_value()) << key << list;
    }
  }
}

class BucketSize : public testing::Test {
 protected:
  Json train(int ranks, const std::string& run, std::vector<std::string> keys) {
    const ProgramEnd end = job_.train(ranks, run, std::move(keys));
    EXPECT_EQ(end.exit_code, 0) << end.output;
    said_ = end.output;
    return bucket_size(job_, run);
  }

  ProgramJob job_;
  std::string said_;
};

TEST_F(BucketSize, IsMeasuredOnceAndKept) {
  const Json first = train(2, "auto", {"comm.bucket_mib=auto", "train.stop_at=5"});
  EXPECT_EQ(first.at("by"), "measurement");
  EXPECT_GT(first.at("mib"), 0.0);
  EXPECT_GE(first.at("predicted_exposed_ms"), 0.0);
  EXPECT_GT(first.at("alone_ms").size(), 1u);
  EXPECT_GE(first.at("backward_dilation"), 1.0);
  EXPECT_NE(said_.find("gradient buckets of "), std::string::npos) << said_;

  const Json second = train(2, "auto", {"comm.bucket_mib=auto", "train.stop_at=8"});
  EXPECT_EQ(second.at("by"), "checkpoint");
  for (const char* key : {"mib", "predicted_exposed_ms", "alone_ms", "beside_ms", "backward_dilation"}) {
    EXPECT_EQ(second.at(key), first.at(key)) << key;
  }
  EXPECT_EQ(train(2, "auto", {"comm.bucket_mib=auto", "train.stop_at=9"}).at("mib"), first.at("mib"));

  // Other ranks have other ways between them.
  EXPECT_EQ(train(3, "auto", {"comm.bucket_mib=auto", "train.stop_at=10", "train.micro_batch=2"}).at("by"),
            "measurement");
  EXPECT_EQ(train(3, "auto", {"comm.bucket_mib=0.5", "train.micro_batch=2"}), (Json{{"by", "config"}, {"mib", 0.5}}));
}

TEST_F(BucketSize, ChangesNoBit) {
  train(2, "fixed", {});
  train(2, "auto", {"comm.bucket_mib=auto", "debug.order_check=true"});
  EXPECT_NE(said_.find(" ms exposed were predicted, "), std::string::npos) << "beside the measured: " << said_;
  expect_equal_metrics(job_.metrics("auto"), job_.metrics("fixed"));
  expect_equal_checkpoints(job_.checkpoint("auto", ProgramJob::kSteps), job_.checkpoint("fixed", ProgramJob::kSteps));
}

TEST_F(BucketSize, NothingIsMeasuredWhereItMustNotBeOrMeansNothing) {
  const Json alone = train(0, "alone", {"comm.bucket_mib=auto", "train.steps=2", "optimizer.warmup_steps=1"});
  EXPECT_EQ(alone, (Json{{"by", "rule"}, {"mib", 0.0625}}));
  const Json deterministic = train(2, "deterministic", {"comm.bucket_mib=auto", "train.deterministic=true"});
  EXPECT_EQ(deterministic, alone);
}

// Each trial step is progress: all together may take longer than a hang is waited for, since a run of such steps may.
TEST_F(BucketSize, SlowTrialsAreNoHang) {
  const std::vector<std::string> keys{"run.hang_s=1", "debug.jitter_us=40000", "train.steps=2",
                                      "data.val=",    "eval.every=0",          "checkpoint.at_end=false"};
  const auto train_with = [&](const std::string& bucket_mib) {
    std::vector<std::string> all = keys;
    all.push_back("comm.bucket_mib=" + bucket_mib);
    return job_.train(2, "slow-" + bucket_mib, all);
  };
  const ProgramEnd fixed = train_with("1");
  ASSERT_EQ(fixed.exit_code, 0) << fixed.output;
  const ProgramEnd chosen = train_with("auto");
  EXPECT_EQ(chosen.exit_code, 0) << chosen.output;
}

// Trials are not sat out by who is asked to stop.
TEST_F(BucketSize, TrialsEndWhereTheRunIsAskedToStop) {
  StrakeProgram program(
      2, job_.arguments("stopped", {"comm.bucket_mib=auto", "debug.jitter_us=20000", "train.steps=2"}), job_.folder());
  while (program.running() && program.output().find("steps before the first") == std::string::npos) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  program.send(SIGUSR1);
  const ProgramEnd end = program.wait();
  EXPECT_EQ(end.exit_code, static_cast<int>(ExitCode::kPreempted)) << end.output;
  EXPECT_EQ(end.output.find("by measurement"), std::string::npos) << end.output;
}

// Ranks as threads: what each takes.
TEST_F(BucketSize, IsTheSameOnAllRanks) {
  constexpr int kRanks = 3;
  SmallJob job;
  launch::Config config = job.config(kRanks, 2, 2, 3);
  config.comm.bucket_mib = std::nullopt;
  std::mutex mutex;
  std::vector<std::string> plans;
  run_threads(config, kRanks, [&](int, const RunRank& run) {
    const auto device = make_cpu_device();
    RankSetup setup{.device = device.get()};
    setup.hooks.before_first_step = [&](launch::Trainer& trainer) {
      const std::lock_guard lock(mutex);
      plans.push_back(trainer.buckets().describe());
    };
    run(std::move(setup));
  });
  ASSERT_EQ(plans.size(), static_cast<std::size_t>(kRanks));
  EXPECT_EQ(plans[1], plans[0]);
  EXPECT_EQ(plans[2], plans[0]);
}

}  // namespace
}  // namespace strake::test
