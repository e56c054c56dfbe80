// train.init_from: a new run starts from the weights of another, or of an import, and from nothing else of it.

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "runtime/base/error.h"
#include "tests/integration/program_job.h"

namespace strake::test {
namespace {

namespace fs = std::filesystem;
constexpr int kAlone = 0, kTwoRanks = 2;
const std::string kSource = "source";

class InitFrom : public testing::Test {
 protected:
  // Steps 3, 6, 9, 12 and 14 of a run whose weights have moved far.
  static void SetUpTestSuite() {
    shared_job = new ProgramJob;
    const ProgramEnd end = shared_job->train(kTwoRanks, kSource);
    ASSERT_EQ(end.exit_code, 0) << end.output;
  }
  static void TearDownTestSuite() { delete shared_job; }

  static std::string key(const fs::path& source) { return "train.init_from=" + source.string(); }
  // Weights stay what they are.
  static std::vector<std::string> standing_still(const fs::path& source) {
    return {key(source),
            "train.steps=1",
            "optimizer.learning_rate=0",
            "optimizer.min_learning_rate=0",
            "optimizer.warmup_steps=0",
            "run.seed=9"};
  }
  fs::path source() const { return job_.run_folder(kSource); }
  ProgramEnd train(int ranks, const std::string& name, const std::vector<std::string>& overrides) {
    ProgramEnd end = job_.train(ranks, name, overrides);
    EXPECT_EQ(end.exit_code, 0) << end.output;
    return end;
  }
  // Where weights() puts them: not among the checkpoints, which may be what is exported.
  fs::path export_of(const fs::path& run) const {
    std::string name = run.lexically_relative(job_.folder()).generic_string();
    std::replace(name.begin(), name.end(), '/', '_');
    return job_.folder() / (name + "-out");
  }
  // The weights of a run as bytes.
  std::string weights(const fs::path& run) {
    const fs::path out = export_of(run);
    const ProgramEnd end = StrakeProgram::run(kAlone, {"export", run.string(), "--out", out.string()}, job_.folder());
    EXPECT_EQ(end.exit_code, 0) << end.output;
    PosixFiles files;
    return read_file(files, out / "model.safetensors", 1 << 24);
  }
  nlohmann::json manifest(const std::string& name, const char* file = "manifest.json") {
    std::ifstream text(job_.run_folder(name) / file);
    return nlohmann::json::parse(text);
  }
  void expect_refused(const std::vector<std::string>& overrides, ExitCode code, const std::vector<std::string>& parts) {
    for (const int ranks : {kAlone, kTwoRanks}) {
      const ProgramEnd end = job_.train(ranks, "refused", overrides);
      EXPECT_EQ(end.exit_code, static_cast<int>(code)) << end.output;
      ASSERT_EQ(end.errors().size(), 1u) << end.output;
      for (const std::string& part : parts) EXPECT_NE(end.errors()[0].find(part), std::string::npos) << end.output;
      EXPECT_FALSE(fs::exists(job_.run_folder("refused"))) << "a refused start has left a run folder";
    }
  }

  static inline ProgramJob* shared_job = nullptr;
  ProgramJob& job_ = *shared_job;
};

// On every rank: a checkpoint of two ranks is made of the parts of both.
TEST_F(InitFrom, AnyNumberOfRanksStartsFromTheseWeights) {
  const std::string expected = weights(source());
  for (const int ranks : {kAlone, 1, 2, 3}) {
    const std::string name = "still-" + std::to_string(ranks);
    std::vector<std::string> overrides = standing_still(source());
    overrides.emplace_back("train.micro_batch=2");
    const ProgramEnd end = train(ranks, name, overrides);
    EXPECT_NE(end.output.find("starting from the weights of step 14 of " + job_.checkpoint(kSource, 14).string()),
              std::string::npos)
        << end.output;
    EXPECT_TRUE(weights(job_.run_folder(name)) == expected) << ranks << " ranks";
  }
  // A checkpoint may be named, and a newer one is not taken then.
  train(kAlone, "still-named", standing_still(job_.checkpoint(kSource, 6)));
  EXPECT_FALSE(weights(job_.run_folder("still-named")) == expected);
  EXPECT_TRUE(weights(job_.run_folder("still-named")) == weights(job_.checkpoint(kSource, 6)));
}

TEST_F(InitFrom, TheFirstLossIsTheLastOfTheSource) {
  train(kTwoRanks, "level", standing_still(source()));
  const launch::Metrics mine = job_.metrics("level"), before = job_.metrics(kSource);
  EXPECT_EQ(mine.evals.back().val_loss, before.evals.back().val_loss) << "the same weights on the same held-out tokens";
  EXPECT_EQ(mine.steps.front().step, 1);
  EXPECT_LT(mine.steps.front().loss, before.steps.front().loss - 0.1) << "not that of random weights";
}

// Exported and imported, weights come back with zero moments, at step 0, and nothing else of the run: what init_from
// gives.
TEST_F(InitFrom, GivesTheBitsOfAnImportOfTheExportedWeights) {
  weights(source());
  for (const int ranks : {kAlone, kTwoRanks}) {
    const std::string direct = "direct-" + std::to_string(ranks), by_way = "imported-" + std::to_string(ranks);
    const ProgramEnd imported = StrakeProgram::run(
        kAlone,
        {"import", export_of(source()).string(), "--run", job_.run_folder(by_way).string(), "--tokenizer", "counted"},
        job_.folder());
    ASSERT_EQ(imported.exit_code, 0) << imported.output;
    train(ranks, by_way, {"run.seed=5"});
    train(ranks, direct, {key(source()), "run.seed=5"});
    expect_equal_metrics(job_.metrics(direct), job_.metrics(by_way));
    EXPECT_TRUE(weights(job_.run_folder(direct)) == weights(job_.run_folder(by_way)));
    // From the import itself: every byte of the checkpoints, moments too. (Export drops the rows that round the
    // vocabulary up, which take no part.)
    const std::string again = "from-import-" + std::to_string(ranks);
    train(ranks, again, {key(job_.checkpoint(by_way, 0)), "run.seed=5"});
    PosixFiles files;
    for (const std::int64_t step : {3, 14}) {
      const checkpoint::Manifest manifest = checkpoint::verify_checkpoint(files, job_.checkpoint(again, step));
      for (const checkpoint::FileRecord& file : manifest.files) {
        EXPECT_TRUE(read_file(files, job_.checkpoint(again, step) / file.name, 1 << 24) ==
                    read_file(files, job_.checkpoint(by_way, step) / file.name, 1 << 24))
            << "weights or moments of step " << step << " differ";
      }
    }
  }
}

TEST_F(InitFrom, AResumedRunGoesOnFromItsOwn) {
  train(kTwoRanks, "parts", {key(source()), "train.stop_at=4"});
  train(kTwoRanks, "straight", {key(source())});
  const ProgramEnd same = train(kTwoRanks, "parts", {key(source()), "train.stop_at=8"});
  EXPECT_EQ(same.output.find("is ignored"), std::string::npos) << same.output;
  const ProgramEnd other = train(kTwoRanks, "parts", {key("/nowhere")});
  EXPECT_NE(other.output.find("train.init_from = /nowhere is ignored"), std::string::npos) << other.output;
  expect_equal_metrics(job_.metrics("parts"), job_.metrics("straight"));

  // Every attempt's manifest says what the run began with.
  for (const char* file : {"manifest-0001.json", "manifest-0002.json", "manifest.json"}) {
    const nlohmann::json origin = manifest("parts", file)["initialized_from"];
    EXPECT_EQ(origin["checkpoint"], job_.checkpoint(kSource, 14).string()) << file;
    EXPECT_EQ(origin["step"], 14) << file;
  }
  EXPECT_TRUE(manifest(kSource)["initialized_from"].is_null());
}

TEST_F(InitFrom, OfADamagedNewestTheOlderIsTakenByAllRanksAndSaid) {
  for (const int ranks : {kAlone, kTwoRanks}) {
    const fs::path damaged = job_.run_folder("damaged-" + std::to_string(ranks));
    fs::copy(source(), damaged, fs::copy_options::recursive);
    std::fstream file(launch::checkpoint_folder(damaged) / "step-00000014" / "rank-0000.h5",
                      std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(20'000);
    file << "damage";
    file.close();
    fs::remove(launch::checkpoint_folder(damaged) / "step-00000012" / "manifest.json");
    const std::string name = "from-damaged-" + std::to_string(ranks);
    const ProgramEnd end = train(ranks, name, standing_still(damaged));
    EXPECT_NE(end.output.find("the checkpoint of step 14 is damaged"), std::string::npos) << end.output;
    EXPECT_NE(end.output.find("the checkpoint of step 12 is damaged"), std::string::npos) << end.output;
    EXPECT_NE(end.output.find("starting from the weights of step 9"), std::string::npos) << end.output;
    EXPECT_TRUE(weights(job_.run_folder(name)) == weights(job_.checkpoint(kSource, 9)));
    EXPECT_TRUE(fs::exists(launch::checkpoint_folder(damaged) / "step-00000014")) << "another run's folder was changed";
    // The one that is named, and no other.
    const ProgramEnd named =
        job_.train(ranks, name + "-named", standing_still(launch::checkpoint_folder(damaged) / "step-00000014"));
    EXPECT_EQ(named.exit_code, static_cast<int>(ExitCode::kNoCheckpoint)) << named.output;
    EXPECT_NE(named.output.find("this checkpoint is damaged: name "), std::string::npos) << named.output;
  }
}

// No weight of theirs depends on how long sequences are.
TEST_F(InitFrom, RotaryModelsTakeAnotherLengthOfSequences) {
  train(kTwoRanks, "rotary", {"model.kind=llama", "train.steps=3"});
  const std::string expected = weights(job_.run_folder("rotary"));
  for (const char* length : {"train.sequence=8", "train.sequence=32"}) {
    std::vector<std::string> overrides = standing_still(job_.run_folder("rotary"));
    overrides.insert(overrides.end(), {"model.kind=llama", length});
    const std::string name = std::string("rotary-") + length;
    train(kTwoRanks, name, overrides);
    EXPECT_TRUE(weights(job_.run_folder(name)) == expected) << length;
  }
  expect_refused({key(job_.run_folder("rotary")), "model.kind=llama", "train.sequence=8", "model.rope_theta=500"},
                 ExitCode::kIncompatibleCheckpoint, {"model.rope_theta is 10000, ours 500"});
}

TEST_F(InitFrom, WhatDoesNotFitIsRefusedBeforeAnythingIsMade) {
  expect_refused({key("/nowhere")}, ExitCode::kNoCheckpoint, {"train.init_from: /nowhere: does not exist"});
  expect_refused({key(job_.folder())}, ExitCode::kNoCheckpoint, {"train.init_from: ", "no checkpoint is in it"});
  expect_refused({key(source()), "model.channels=32"}, ExitCode::kIncompatibleCheckpoint,
                 {"train.init_from: ", "step-00000014", "channels is 16, ours 32"});
  expect_refused({key(source()), "model.layers=3", "train.sequence=8"}, ExitCode::kIncompatibleCheckpoint,
                 {"layers is 2, ours 3", "sequence is 16, ours 8"});
  weights(source());
  expect_refused({key(export_of(source()))}, ExitCode::kNoCheckpoint,
                 {"but model.safetensors; make a run of it (strake import"});
  const fs::path other = job_.run_folder("other-tokenizer");
  ASSERT_EQ(StrakeProgram::run(kAlone,
                               {"import", export_of(source()).string(), "--run", other.string(), "--tokenizer", "gpt2"},
                               job_.folder())
                .exit_code,
            0);
  expect_refused({key(other)}, ExitCode::kData, {"train.init_from: ", "were trained with \"gpt2\""});
}

}  // namespace
}  // namespace strake::test
