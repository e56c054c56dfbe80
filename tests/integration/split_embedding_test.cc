// comm.split_embedding: by the rule, as told, and as the run began.

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "runtime/base/error.h"
#include "tests/integration/program_job.h"

namespace strake::test {
namespace {

class SplitEmbedding : public testing::Test {
 protected:
  // choices.split_embedding of the attempt, and of its last checkpoint.
  bool train(int ranks, const std::string& run, std::vector<std::string> keys, std::int64_t steps) {
    keys.push_back("train.stop_at=" + std::to_string(steps));
    const ProgramEnd end = job_.train(ranks, run, keys);
    EXPECT_EQ(end.exit_code, 0) << end.output;
    PosixFiles files;
    const std::string text = read_file(files, job_.run_folder(run) / "manifest.json", 1 << 20);
    const bool split = nlohmann::json::parse(text).at("choices").at("split_embedding");
    const auto kept = checkpoint::verify_checkpoint(files, job_.checkpoint(run, steps)).meta.choices;
    EXPECT_EQ(nlohmann::json::parse(kept).at("split_embedding"), split);
    return split;
  }

  ProgramJob job_;
};

TEST_F(SplitEmbedding, FollowsTheRuleUnlessTold) {
  EXPECT_FALSE(train(2, "many", {}, 2)) << "more tokens than rows in the table";
  EXPECT_TRUE(train(2, "few", {"train.sequence=4"}, 2));
  EXPECT_FALSE(train(2, "few whole", {"train.sequence=4", "comm.split_embedding=false"}, 2));
  EXPECT_TRUE(train(2, "many split", {"comm.split_embedding=true"}, 2));
}

// A run goes on as it began, whatever the rule says by then; as many ranks make the same sums.
TEST_F(SplitEmbedding, IsKeptByARunThatGoesOn) {
  EXPECT_TRUE(train(2, "straight", {"comm.split_embedding=true"}, ProgramJob::kSteps));
  EXPECT_TRUE(train(2, "cut", {"comm.split_embedding=true"}, 4));
  EXPECT_TRUE(train(2, "cut", {}, 7));
  EXPECT_TRUE(train(2, "cut", {"train.shard=optimizer"}, ProgramJob::kSteps));
  expect_equal_metrics(job_.metrics("cut"), job_.metrics("straight"));

  EXPECT_TRUE(train(2, "told", {"comm.split_embedding=true"}, 2));
  EXPECT_FALSE(train(2, "told", {"comm.split_embedding=false"}, 4));
  EXPECT_FALSE(train(2, "told", {}, 6));
  EXPECT_TRUE(train(2, "others", {"comm.split_embedding=true"}, 2));
  EXPECT_FALSE(train(1, "others", {}, 4)) << "of as many ranks only";
}

TEST_F(SplitEmbedding, OneRankHasNothingToSplit) {
  EXPECT_FALSE(train(1, "plain", {}, 6));
  EXPECT_FALSE(train(1, "split", {"comm.split_embedding=true"}, 6));
  expect_equal_metrics(job_.metrics("split"), job_.metrics("plain"));
  PosixFiles files;  // manifests differ by the key
  const auto split = job_.checkpoint("split", 6), plain = job_.checkpoint("plain", 6);
  for (const checkpoint::FileRecord& file : checkpoint::verify_checkpoint(files, plain).files) {
    EXPECT_TRUE(read_file(files, split / file.name, 1 << 30) == read_file(files, plain / file.name, 1 << 30))
        << file.name;
  }
}

TEST_F(SplitEmbedding, NeedsATiedHead) {
  const ProgramEnd end = job_.train(2, "untied", {"model.kind=llama", "comm.split_embedding=true"});
  EXPECT_EQ(end.exit_code, static_cast<int>(ExitCode::kConfig)) << end.output;
  ASSERT_EQ(end.errors().size(), 1u) << end.output;
  EXPECT_NE(end.errors()[0].find("comm.split_embedding = true: the head has weights of its own"), std::string::npos)
      << end.output;
}

TEST_F(SplitEmbedding, TheScheduleSaysWhatIsLeftAtTheEnd) {
  const ProgramEnd end = job_.train(
      2, "none", {"comm.split_embedding=true", "model.kind=llama", "model.tied_head=true", "--print-schedule"});
  ASSERT_EQ(end.exit_code, 0) << end.output;
  EXPECT_NE(end.output.find("exposed by structure, final when backward ends: bucket "), std::string::npos)
      << end.output;
  EXPECT_NE(end.output.find("; token rows of all ranks, "), std::string::npos) << end.output;
}

}  // namespace
}  // namespace strake::test
