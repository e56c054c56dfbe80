// Ranks that were not given the same thing, through the real program under one mpirun: each difference is refused
// before anything is trained, with both values; none hangs, none corrupts memory, none leaves a checkpoint behind.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "runtime/base/error.h"
#include "tests/integration/program_job.h"

namespace strake::test {
namespace {

namespace fs = std::filesystem;

class RankDifferences : public testing::Test {
 protected:
  // What both ranks get; relative paths, so that each rank may have a folder of its own.
  std::vector<std::string> common() const {
    std::vector<std::string> words = job_.arguments("run", {});
    words.insert(words.end(), {"train.steps=6", "eval.every=0"});
    return words;
  }
  OddRank rank_with(const std::vector<std::string>& more, fs::path folder = {}) const {
    OddRank rank{.arguments = common(), .folder = std::move(folder)};
    rank.arguments.insert(rank.arguments.end(), more.begin(), more.end());
    return rank;
  }

  // Refused with code 10 in one line that has `parts`; nothing is left that looks like a run.
  void expect_refused(const std::vector<OddRank>& ranks, const std::vector<std::string>& parts) {
    const ProgramEnd end = StrakeProgram(ranks, job_.folder()).wait();
    EXPECT_FALSE(end.hung) << end.output;
    EXPECT_EQ(end.exit_code, static_cast<int>(ExitCode::kConfig)) << end.output;
    const std::vector<std::string> errors = end.errors();
    ASSERT_EQ(errors.size(), 1u) << end.output;
    for (const std::string& part : parts)
      EXPECT_NE(errors[0].find(part), std::string::npos) << part << "\n" << errors[0];
    EXPECT_FALSE(fs::exists(job_.run_folder("run") / "ckpt")) << end.output;
  }
  void expect_key_refused(const std::string& key, const std::string& a, const std::string& b) {
    SCOPED_TRACE(key);
    expect_refused({rank_with({key + "=" + a}), rank_with({key + "=" + b})},
                   {key + ": the ranks differ", "rank 0 has", a, "rank 1 has", b});
  }

  // A folder of its own with copies of the job's token files.
  fs::path own_folder(const std::string& name) {
    const fs::path folder = job_.folder() / name;
    fs::create_directories(folder);
    for (const fs::path& file : {job_.job().train_tokens(), job_.job().val_tokens()}) {
      fs::copy_file(file, folder / file.filename());
      fs::copy_file(file.string() + ".json", folder / (file.filename().string() + ".json"));
    }
    return folder;
  }
  std::vector<OddRank> ranks_in(const fs::path& a, const fs::path& b, const std::vector<std::string>& more = {}) {
    std::vector<std::string> words{"data.train=train.bin", "data.val=val.bin"};
    words.insert(words.end(), more.begin(), more.end());
    return {rank_with(words, a), rank_with(words, b)};
  }
  static void change_byte(const fs::path& path, std::int64_t at) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(at);
    const int before = file.get();
    file.seekp(at);
    file.put(static_cast<char>(before ^ 1));
  }

  ProgramJob job_;
};

TEST_F(RankDifferences, KeysThatChangeWhatIsTrained) {
  expect_key_refused("optimizer.learning_rate", "0.02", "0.03");
  expect_key_refused("run.seed", "1", "2");
  expect_key_refused("train.steps", "6", "8");
  expect_key_refused("train.sequence", "16", "8");
  expect_key_refused("model.layers", "2", "3");
}

TEST_F(RankDifferences, KeysThatChangeWhatTravels) {
  expect_key_refused("comm.bucket_mib", "0.008", "0.001");
  expect_key_refused("train.micro_batch", "3", "6");
  expect_key_refused("comm.wire_dtype", "f32", "bf16");
  expect_key_refused("comm.split_embedding", "true", "false");
  expect_key_refused("checkpoint.every", "3", "2");
}

TEST_F(RankDifferences, FoldersOfTheRun) {
  expect_refused({rank_with({}), rank_with({"run.dir=" + job_.run_folder("other").string()})},
                 {"run.dir: the ranks differ", "other"});
}

// The same relative path in two folders, as where a file system is not mounted on a host: nothing is written there, and
// checkpoints that only rank 0 sees are not called damaged.
TEST_F(RankDifferences, AFolderThatIsNotShared) {
  const fs::path a = own_folder("a"), b = own_folder("b");
  const std::vector<std::string> words{"run.dir=here", "train.steps=4"};
  for (const bool is_there : {false, true}) {
    SCOPED_TRACE(is_there);
    if (is_there) fs::create_directories(b / "here" / "ckpt");
    const ProgramEnd end = StrakeProgram(ranks_in(a, b, words), job_.folder()).wait();
    EXPECT_EQ(end.exit_code, static_cast<int>(ExitCode::kConfig)) << end.output;
    ASSERT_EQ(end.errors().size(), 1u) << end.output;
    EXPECT_NE(end.errors()[0].find("rank 1: run.dir: here on host "), std::string::npos) << end.output;
  }
  const ProgramEnd shared = StrakeProgram(ranks_in(a, a, words), job_.folder()).wait();
  EXPECT_EQ(shared.exit_code, 0) << shared.output;
  const ProgramEnd end = StrakeProgram(ranks_in(a, b, {"run.dir=here", "train.steps=6"}), job_.folder()).wait();
  EXPECT_EQ(end.exit_code, static_cast<int>(ExitCode::kConfig)) << end.output;
  EXPECT_TRUE(fs::exists(a / "here" / "ckpt" / "step-00000004")) << end.output;
}

TEST_F(RankDifferences, SeveralAtOnceAreAllNamed) {
  const ProgramEnd end =
      StrakeProgram({rank_with({}), rank_with({"run.seed=9", "train.micro_batch=6"}), rank_with({})}, job_.folder())
          .wait();
  EXPECT_EQ(end.exit_code, static_cast<int>(ExitCode::kConfig)) << end.output;
  const std::vector<std::string> errors = end.errors();
  ASSERT_EQ(errors.size(), 2u) << end.output;
  EXPECT_NE(errors[0].find("run.seed: the ranks differ: rank 0, 2 has 1, rank 1 has 9"), std::string::npos)
      << errors[0];
  EXPECT_NE(errors[1].find("train.micro_batch"), std::string::npos) << errors[1];
}

TEST_F(RankDifferences, Commands) {
  OddRank bench = rank_with({});
  bench.arguments[0] = "step";
  bench.arguments.insert(bench.arguments.begin(), "bench");
  expect_refused({rank_with({}), bench}, {"command: the ranks differ", "train", "bench step"});
}

// Ranks with other options would be at other collectives, or wait for each other for ever.
TEST_F(RankDifferences, Options) {
  const auto expect_option_refused = [&](const std::vector<std::string>& command, const std::string& option,
                                         const std::string& a, const std::string& b) {
    SCOPED_TRACE(command.front() + " " + option);
    std::vector<OddRank> ranks(2);
    for (OddRank& rank : ranks) rank.arguments = command;
    if (!a.empty()) ranks[0].arguments.insert(ranks[0].arguments.end(), {option, a});
    ranks[1].arguments.push_back(option);
    if (!b.empty()) ranks[1].arguments.push_back(b);
    expect_refused(ranks, {option + ": the ranks differ"});
  };
  const std::vector<std::string> comm{"bench", "comm", "run.device=cpu", "--max", "2KiB"};
  expect_option_refused(comm, "--iterations", "3", "5");
  expect_option_refused(comm, "--only", "all_reduce", "broadcast");
  expect_option_refused(comm, "--dtype", "", "bf16");
  const std::string config = job_.config_path().string();
  expect_option_refused({"bench", "step", config}, "--steps", "2", "3");
  expect_option_refused({"bench", "kernels", config}, "--steps", "2", "3");
  expect_option_refused({"bench", "step", config}, "--stub-comm", "", "");
  expect_option_refused({"verify-overlap", config}, "--steps", "2", "3");
  expect_option_refused({"verify-overlap", config, "--steps", "1"}, "--variants", "late", "recompute");
}

// The same path, other bytes: what hosts without a shared file system have.
TEST_F(RankDifferences, TrainingTokens) {
  const fs::path a = own_folder("a"), b = own_folder("b");
  write_tokens(b / "train.bin", 375 * 16, 77);
  expect_refused(ranks_in(a, b), {"data.train: the ranks differ"});
}

TEST_F(RankDifferences, TrainingTokensWithoutASidecar) {
  const fs::path a = own_folder("a"), b = own_folder("b");
  for (const fs::path& folder : {a, b}) fs::remove(folder / "train.bin.json");
  change_byte(b / "train.bin", static_cast<std::int64_t>(fs::file_size(b / "train.bin")) - 2);
  expect_refused(ranks_in(a, b, {"model.vocab=60"}), {"data.train: the ranks differ"});
}

TEST_F(RankDifferences, HeldOutTokens) {
  const fs::path a = own_folder("a"), b = own_folder("b");
  write_tokens(b / "val.bin", 94 * 16, 78);
  expect_refused(ranks_in(a, b), {"data.val: the ranks differ"});
}

TEST_F(RankDifferences, Tokenizers) {
  const fs::path a = own_folder("a"), b = own_folder("b");
  for (const char* name : {"train.bin.json", "val.bin.json"}) {
    std::ifstream in(b / name);
    std::string text{std::istreambuf_iterator<char>(in), {}};
    const std::size_t at = text.find("00000001");  // the tokenizer's hash
    ASSERT_NE(at, std::string::npos) << text;
    text.replace(at, 8, "00000002");
    std::ofstream(b / name) << text;
  }
  expect_refused(ranks_in(a, b), {"tokenizer: the ranks differ", "00000001", "00000002"});
}

// The rank that cannot read its file says so, and the other does not wait for it.
TEST_F(RankDifferences, AFileThatOnlyOneRankHas) {
  const fs::path a = own_folder("a"), b = own_folder("b");
  fs::remove(b / "train.bin");
  const ProgramEnd end = StrakeProgram(ranks_in(a, b), job_.folder()).wait();
  EXPECT_FALSE(end.hung) << end.output;
  EXPECT_EQ(end.exit_code, static_cast<int>(ExitCode::kData)) << end.output;
  ASSERT_EQ(end.errors().size(), 1u) << end.output;
  EXPECT_NE(end.errors()[0].find("rank 1: "), std::string::npos) << end.output;
}

TEST_F(RankDifferences, AConfigThatOnlyOneRankHas) {
  OddRank rank = rank_with({});
  rank.arguments[1] = "no-such.toml";
  const ProgramEnd end = StrakeProgram({rank_with({}), rank}, job_.folder()).wait();
  EXPECT_FALSE(end.hung) << end.output;
  EXPECT_EQ(end.exit_code, static_cast<int>(ExitCode::kConfig)) << end.output;
  ASSERT_EQ(end.errors().size(), 1u) << end.output;
  EXPECT_NE(end.errors()[0].find("rank 1: "), std::string::npos) << end.output;
}

}  // namespace
}  // namespace strake::test
