// `strake plan`, as people and scripts meet it.
#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "runtime/base/error.h"
#include "tests/integration/strake_program.h"
#include "tests/support/scratch_folder.h"

namespace strake::test {
namespace {

using Json = nlohmann::json;

const std::string kExamples = STRAKE_SOURCE_FOLDER "/examples/";

class Plan : public testing::Test {
 protected:
  ProgramEnd plan(const std::string& config, std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), {"plan", config});
    return StrakeProgram::run(0, arguments, folder_.path());
  }
  Json json(const std::string& config, std::vector<std::string> arguments) const {
    arguments.emplace_back("--json");
    const ProgramEnd end = plan(config, arguments);
    EXPECT_EQ(end.exit_code, 0) << end.output;
    const Json json = Json::parse(end.output, nullptr, false);
    EXPECT_TRUE(json.is_object()) << end.output;
    return json;
  }
  std::string small_config() const {
    const auto path = folder_.path() / "small.toml";
    std::ofstream(path) << "[model]\nlayers = 2\nchannels = 64\nheads = 2\nvocab = 300\n"
                           "[train]\nglobal_batch = 12\nmicro_batch = 2\nsequence = 32\n";
    return path;
  }
  void expect_error(const ProgramEnd& end, const std::string& words) const {
    EXPECT_EQ(end.exit_code, static_cast<int>(ExitCode::kConfig)) << end.output;
    ASSERT_EQ(end.errors().size(), 1u) << end.output;
    EXPECT_NE(end.errors().front().find(words), std::string::npos) << end.output;
  }

  ScratchFolder folder_;
};

// Models of more memory than this machine has, without their data, in a moment.
TEST_F(Plan, LargeExamplesFitInto48GiB) {
  for (const char* name : {"gpt2-1.5b.toml", "llama-1b.toml"}) {
    const Json said = json(kExamples + name, {"--device", "cuda", "--memory", "48GiB"});
    EXPECT_EQ(said.at("format"), "strake-plan-1");
    EXPECT_EQ(said.at("device"), "cuda");
    EXPECT_EQ(said.at("dtype"), "bf16");
    EXPECT_GT(said.at("parameters"), 1'200'000'000);
    EXPECT_TRUE(said.at("fits")) << name << ": " << said.at("needed_bytes");
    EXPECT_EQ(said.at("limit_bytes"), std::int64_t{48} << 30);
    ASSERT_EQ(said.at("policies").size(), 3u);
    EXPECT_FALSE(said.at("policies")[0].at("fits")) << name;
    EXPECT_EQ(said.at("policies")[0].at("more_flops"), 0);
    EXPECT_EQ(said.at("policies")[2].at("recompute"), "block");
    EXPECT_EQ(said.at("policies")[2].at("bytes"), said.at("needed_bytes")) << "as the example has it";
    EXPECT_GE(said.at("policies")[2].at("largest_micro_batch"), said.at("config").at("train").at("micro_batch"));
    EXPECT_GT(said.at("step").at("recomputed_flops"), 0);
    EXPECT_FALSE(said.at("fullest").at("activations").empty());
  }
}

TEST_F(Plan, SaysWhatIsExposedByStructure) {
  const auto said = [&](const char* ranks) {
    return json(small_config(), {"--ranks", ranks, "model.kind=llama", "comm.bucket_mib=0.01"}).at("buckets");
  };
  const Json at_end = said("3").at("final_at_end");
  ASSERT_EQ(at_end.size(), said("3").at("bytes").size());
  for (std::size_t i = 0; i < at_end.size(); ++i) {
    EXPECT_EQ(at_end[i], i + 1 == at_end.size())
        << "bucket " << i << ": the token table is the last, the head the first";
  }
  EXPECT_EQ(plan(small_config(), {"--ranks", "1"}).output.find("exposed"), std::string::npos);
}

TEST_F(Plan, SaysItForPeople) {
  const ProgramEnd end = plan(small_config(), {"--device", "cuda", "--ranks", "3", "--memory", "80GiB"});
  EXPECT_EQ(end.exit_code, 0) << end.output;
  for (const char* words :
       {"2 x 3 ranks x 2 accumulated = 12 sequences of 32 tokens", "FLOPs", "bytes moved", "buckets", "optimizer state",
        "exposed by structure, final when backward ends: bucket", "context and libraries", "estimated by",
        "alive at the fullest operation", "which fits into 80.00 GiB (--memory)", "norm_activation", "block"}) {
    EXPECT_NE(end.output.find(words), std::string::npos) << "no '" << words << "' in\n" << end.output;
  }
}

TEST_F(Plan, AnyNumberOfRanks) {
  for (const int ranks : {1, 3, 6, 60, 4096}) {
    const std::string batch = "train.global_batch=" + std::to_string(2 * ranks);
    const Json said = json(small_config(), {batch, "--ranks", std::to_string(ranks), "--device", "cpu"});
    EXPECT_EQ(said.at("ranks"), ranks);
    EXPECT_EQ(said.at("accumulation"), 1);
    EXPECT_EQ(said.at("device"), "cpu");
    EXPECT_TRUE(said.at("device_here"));
    EXPECT_EQ(said.at("step").at("sent_bytes") > 0, ranks > 1);
    EXPECT_TRUE(said.at("estimated_by").is_null());
  }
  expect_error(plan(small_config(), {"--ranks", "5"}),
               "train.global_batch: 12 is not a multiple of train.micro_batch x ranks = 2 x 5 = 10; use "
               "train.global_batch = 10 or 20");
}

// As one of those ranks would say it.
TEST_F(Plan, PrintsTheScheduleOfAnyNumberOfRanks) {
  const std::vector<std::string> keys{"--device", "cpu", "train.shard=optimizer", "comm.bucket_mib=0.05"};
  std::vector<std::string> many = keys;
  many.insert(many.end(), {"--ranks", "64", "train.global_batch=128", "--print-schedule"});
  const ProgramEnd end = plan(small_config(), many);
  ASSERT_EQ(end.exit_code, 0) << end.output;
  EXPECT_NE(end.output.find("schedule of a rank:"), std::string::npos) << end.output;
  for (const char* words : {"bucket 0 reduce-scatter", "bucket 1 reduce-scatter", "all-gather"})
    EXPECT_NE(end.output.find(words), std::string::npos) << words << "\n" << end.output;
  EXPECT_EQ(plan(small_config(), keys).output.find("schedule of a rank:"), std::string::npos);
  many.emplace_back("--json");
  EXPECT_EQ(plan(small_config(), many).exit_code, static_cast<int>(ExitCode::kConfig));
}

// Sharding among one costs nothing: not a line of the schedule differs.
TEST_F(Plan, OneRankThatShardsHasTheScheduleOfOneThatDoesNot) {
  const auto of = [&](const std::string& shard) {
    return plan(small_config(),
                {"--device", "cpu", "--memory", "8GiB", "--ranks", "1", "train.shard=" + shard, "--print-schedule"})
        .output;
  };
  EXPECT_NE(of("none").find("schedule of a rank:"), std::string::npos);
  EXPECT_EQ(of("none"), of("optimizer"));
}

TEST_F(Plan, WhereNothingFitsItSaysWhatWould) {
  const ProgramEnd small = plan(small_config(), {"--memory", "1MiB"});
  expect_error(small, "nothing fits into 1.00 MiB: the least is ");
  EXPECT_NE(small.output.find("memory of a rank"), std::string::npos) << "what it takes is said all the same";
  expect_error(plan(kExamples + "llama-1b.toml", {"--device", "cuda", "--memory", "20GiB"}), "lower model.layers (");
  // What does not fit as it is, but otherwise, is no mistake.
  const Json said =
      json(kExamples + "llama-1b.toml", {"--device", "cuda", "--memory", "48GiB", "train.recompute=none"});
  EXPECT_FALSE(said.at("fits"));
}

TEST_F(Plan, NeedsNoTokensButAVocabulary) {
  const Json said = json(small_config(), {"data.train=/nowhere/train.bin", "data.val=/nowhere/val.bin"});
  EXPECT_EQ(said.at("config").at("data").at("train"), "/nowhere/train.bin");
  expect_error(plan(small_config(), {"model.vocab=0"}), "model.vocab: is not set, and neither is data.train");
  const ProgramEnd unknown = plan(small_config(), {"model.vocab=0", "data.train=/nowhere/train.bin"});
  expect_error(unknown, "model.vocab: is not set, and data.train does not tell: ");
  EXPECT_NE(unknown.output.find("; add model.vocab=256 for tokens that `strake data prepare` makes"), std::string::npos)
      << unknown.output;
  // With the key that it names.
  json(small_config(), {"model.vocab=256", "data.train=/nowhere/train.bin"});
  // The tokenizer's, where the file is there.
  const auto text = folder_.path() / "text";
  std::ofstream(text) << std::string(5000, 'a');
  const std::string tokens = folder_.path() / "train.bin";
  ASSERT_EQ(StrakeProgram::run(0, {"data", "prepare", text.string(), "--train", tokens}, folder_.path()).exit_code, 0);
  EXPECT_EQ(json(small_config(), {"model.vocab=0", "data.train=" + tokens}).at("parameters"),
            json(small_config(), {"model.vocab=256"}).at("parameters"));
}

TEST_F(Plan, RefusesWhatARunRefuses) {
  expect_error(plan(small_config(), {"--device", "cpu", "train.dtype=bf16"}), "train.dtype = bf16");
  expect_error(plan(small_config(), {"--device", "cuda", "model.head_size=300"}), "head");
  expect_error(plan(small_config(), {"--device", "cpu", "comm.backend=nccl"}), "comm.backend = nccl");
  expect_error(plan(small_config(), {"train.mirco_batch=3"}), "did you mean train.micro_batch?");
}

}  // namespace
}  // namespace strake::test
