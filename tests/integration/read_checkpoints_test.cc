// Reading what a run has kept, as a person does: generate, export, ckpt list, ckpt verify. Damage is told, older
// weights are never used in silence, and a run folder stays as it was to the last byte and time stamp.

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "checkpoint/directory.h"
#include "launch/run/run_folder.h"
#include "runtime/base/error.h"
#include "tests/integration/strake_program.h"
#include "tests/support/scratch_folder.h"

namespace strake::test {
namespace {

namespace fs = std::filesystem;
constexpr int kAlone = 0;

class ReadCheckpoints : public testing::Test {
 protected:
  // A run with checkpoints of steps 2, 4 and 6.
  static void SetUpTestSuite() {
    folder = new ScratchFolder(ScratchFolder::Where::kMemory);
    std::ofstream text(folder->path() / "text.txt");
    for (int i = 0; i < 400; ++i) text << "The " << i << "th line of a text that is to be learned.\n";
    text.close();
    ASSERT_EQ(strake({"data", "prepare", at("text.txt"), "--train", at("train.bin"), "--val", at("val.bin")}).exit_code,
              0);
    std::ofstream(folder->path() / "job.toml")
        << "[model]\nlayers = 1\nchannels = 16\nheads = 2\n[data]\ntrain = \"" << at("train.bin")
        << "\"\n[train]\nsteps = 6\nglobal_batch = 4\nmicro_batch = 2\nsequence = 16\n[optimizer]\nlearning_rate = "
           "2e-2\n"
        << "min_learning_rate = 2e-3\nwarmup_steps = 0\n[checkpoint]\nevery = 2\nkeep = 10\n[run]\ndevice = \"cpu\"\n";
    const ProgramEnd end = strake({"train", at("job.toml"), "run.dir=" + at("whole")});
    ASSERT_EQ(end.exit_code, 0) << end.output;
  }
  static void TearDownTestSuite() { delete folder; }

  void SetUp() override {
    fs::remove_all(run());
    fs::copy(folder->path() / "whole", run(), fs::copy_options::recursive);
  }

  static std::string at(const std::string& name) { return (folder->path() / name).string(); }
  static ProgramEnd strake(std::vector<std::string> arguments, int ranks = kAlone) {
    return StrakeProgram::run(ranks, std::move(arguments), folder->path());
  }
  static fs::path run() { return folder->path() / "run"; }
  static fs::path checkpoint(std::int64_t step) {
    return launch::checkpoint_folder(run()) / checkpoint::step_name(step);
  }
  static ProgramEnd generate(const fs::path& path) {
    return strake({"generate", path.string(), "--prompt", "The ", "--tokens", "20", "--device", "cpu"});
  }
  static ProgramEnd exported(const fs::path& path) { return strake({"export", path.string(), "--out", at("out")}); }

  // Damages that every check of sizes passes over, and one that it sees.
  static void flip_byte(std::int64_t step) {
    // All of the file, byte for byte: wherever the weights lie.
    const fs::path path = checkpoint(step) / "rank-0000.h5";
    std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
    for (std::uint64_t offset = 5000; offset < fs::file_size(path); offset += 5000) {
      file.seekg(static_cast<std::streamoff>(offset));
      const char byte = static_cast<char>(file.get() ^ 1);
      file.seekp(static_cast<std::streamoff>(offset));
      file.put(byte);
    }
  }
  static void truncate(std::int64_t step) { fs::resize_file(checkpoint(step) / "rank-0000.h5", 9000); }
  static void remove_manifest(std::int64_t step) { fs::remove(checkpoint(step) / "manifest.json"); }

  // Names, sizes, times and contents of everything in the run folder.
  static std::map<std::string, std::string> everything() {
    std::map<std::string, std::string> all;
    for (const auto& entry : fs::recursive_directory_iterator(run())) {
      std::ostringstream text;
      text << entry.last_write_time().time_since_epoch().count() << ' ';
      if (entry.is_regular_file()) text << std::ifstream(entry.path(), std::ios::binary).rdbuf();
      all[entry.path().string()] = text.str();
    }
    return all;
  }

  static inline ScratchFolder* folder = nullptr;
};

// What follows the prompt is that of the checkpoint that is used: which one shows in the text.
TEST_F(ReadCheckpoints, OfADamagedNewestTheOlderIsUsedAndSaid) {
  const std::string of_4 = generate(checkpoint(4)).output, of_6 = generate(run()).output;
  ASSERT_NE(of_4, of_6) << "the two cannot be told apart";
  for (const auto damage : {flip_byte, truncate, remove_manifest}) {
    SetUp();
    damage(6);
    const auto before = everything();
    const ProgramEnd text = generate(run());
    EXPECT_EQ(text.exit_code, 0) << text.output;
    EXPECT_NE(text.output.find("warning: " + run().string() + ": the checkpoint of step 6 is damaged ("),
              std::string::npos)
        << text.output;
    EXPECT_NE(text.output.find("takes that of step 4, 2 steps older"), std::string::npos) << text.output;
    EXPECT_TRUE(text.output.ends_with(of_4)) << text.output << "\nnot\n" << of_4;

    const ProgramEnd out = exported(run());
    EXPECT_EQ(out.exit_code, 0) << out.output;
    EXPECT_NE(out.output.find("takes that of step 4"), std::string::npos) << out.output;
    EXPECT_NE(out.output.find("step 4 of " + checkpoint(4).string()), std::string::npos) << out.output;
    EXPECT_TRUE(everything() == before) << "a command that reads has changed the run folder";
  }
}

TEST_F(ReadCheckpoints, OfTwoDamagedOnesTheThirdIsUsed) {
  flip_byte(6);
  truncate(4);
  const ProgramEnd end = generate(run());
  EXPECT_EQ(end.exit_code, 0) << end.output;
  EXPECT_NE(end.output.find("of step 6 is damaged"), std::string::npos) << end.output;
  EXPECT_NE(end.output.find("of step 4 is damaged"), std::string::npos) << end.output;
  EXPECT_NE(end.output.find("takes that of step 2, 4 steps older"), std::string::npos) << end.output;
}

TEST_F(ReadCheckpoints, WithoutAWholeOneItIsAnErrorThatSaysWhy) {
  flip_byte(6);
  truncate(4);
  remove_manifest(2);
  for (const ProgramEnd& end : {generate(run()), exported(run())}) {
    EXPECT_EQ(end.exit_code, static_cast<int>(ExitCode::kNoCheckpoint)) << end.output;
    ASSERT_EQ(end.errors().size(), 1u) << end.output;
    EXPECT_NE(end.errors()[0].find("none of its checkpoints is whole; that of step 6: "), std::string::npos)
        << end.output;
    EXPECT_NE(end.errors()[0].find("restore one from a copy"), std::string::npos) << end.output;
  }
}

// No other weights than those that were named; the error says how to get others.
TEST_F(ReadCheckpoints, OneThatIsNamedIsUsedOrRefused) {
  for (const auto damage : {flip_byte, truncate, remove_manifest}) {
    SetUp();
    damage(6);
    for (const ProgramEnd& end : {generate(checkpoint(6)), exported(checkpoint(6)), generate(checkpoint(6) / "")}) {
      EXPECT_EQ(end.exit_code, static_cast<int>(ExitCode::kNoCheckpoint)) << end.output;
      ASSERT_EQ(end.errors().size(), 1u) << end.output;
      EXPECT_NE(end.errors()[0].find("this checkpoint is damaged: name " + checkpoint(6).parent_path().string()),
                std::string::npos)
          << end.output;
    }
    EXPECT_EQ(generate(checkpoint(4)).exit_code, 0);
    EXPECT_EQ(generate(checkpoint(4).parent_path()).exit_code, 0) << "the folder that the error names";
  }
}

// Training has set the newest aside: what is older is not used in silence either.
TEST_F(ReadCheckpoints, OneThatWasSetAsideIsRemembered) {
  flip_byte(6);
  ASSERT_EQ(strake({"train", at("job.toml"), "run.dir=" + run().string(), "train.steps=4"}).exit_code, 0);
  const ProgramEnd text = generate(run());
  EXPECT_NE(text.output.find("of step 6 is damaged (set aside as .bad-step-00000006)"), std::string::npos)
      << text.output;
  const ProgramEnd list = strake({"ckpt", "list", run().string()});
  EXPECT_NE(list.output.find(".bad-step-00000006  step 6  was found damaged and set aside"), std::string::npos)
      << list.output;
}

TEST_F(ReadCheckpoints, ThatAllWereSetAsideIsSaid) {
  for (const std::int64_t step : {2, 4, 6}) {
    std::filesystem::rename(checkpoint(step), checkpoint(step).parent_path() / (".bad-" + checkpoint::step_name(step)));
  }
  const ProgramEnd end = strake({"ckpt", "verify", run().string()});
  EXPECT_EQ(end.exit_code, static_cast<int>(ExitCode::kNoCheckpoint)) << end.output;
  ASSERT_EQ(end.errors().size(), 1u) << end.output;
  EXPECT_NE(end.errors()[0].find("no whole checkpoint is left: all 3 were found damaged and set aside"),
            std::string::npos)
      << end.output;
}

std::vector<std::string> lines(const ProgramEnd& end) {
  std::vector<std::string> out;
  std::istringstream text(end.output);
  for (std::string line; std::getline(text, line);) out.push_back(line);
  return out;
}

TEST_F(ReadCheckpoints, OneThatIsNamedIsListedAlone) {
  for (const std::string& named : {checkpoint(4).string(), checkpoint(4).string() + "/"}) {
    const ProgramEnd list = strake({"ckpt", "list", named});
    EXPECT_EQ(list.exit_code, 0) << list.output;
    ASSERT_EQ(lines(list).size(), 1u) << list.output;
    EXPECT_TRUE(lines(list)[0].starts_with(checkpoint(4).string() + "  step 4  ")) << list.output;
  }
  const ProgramEnd none = strake({"ckpt", "list", checkpoint(5).string()});
  EXPECT_EQ(none.exit_code, static_cast<int>(ExitCode::kNoCheckpoint)) << none.output;
}

TEST_F(ReadCheckpoints, TheListSaysWholeOnlyOfWhatWasVerified) {
  flip_byte(6);
  truncate(2);
  const auto before = everything();
  const ProgramEnd list = strake({"ckpt", "list", run().string()});
  EXPECT_EQ(list.exit_code, 0) << list.output;
  ASSERT_EQ(lines(list).size(), 3u) << list.output;
  EXPECT_TRUE(lines(list)[0].ends_with("not verified (manifest and file sizes are right)")) << list.output;
  EXPECT_TRUE(lines(list)[1].ends_with("not verified (manifest and file sizes are right)")) << list.output;
  EXPECT_NE(lines(list)[2].find("rank-0000.h5: 9000 bytes"), std::string::npos) << list.output;
  EXPECT_EQ(list.output.find("whole"), std::string::npos) << list.output;

  const ProgramEnd verified = strake({"ckpt", "list", run().string(), "--verify"});
  EXPECT_EQ(verified.exit_code, static_cast<int>(ExitCode::kNoCheckpoint)) << verified.output;
  ASSERT_EQ(lines(verified).size(), 5u) << verified.output;
  EXPECT_NE(lines(verified)[0].find("checksum of chunk 0"), std::string::npos) << verified.output;
  EXPECT_TRUE(lines(verified)[1].ends_with("whole, every byte is as written")) << verified.output;
  EXPECT_EQ(verified.errors().size(), 2u) << verified.output;
  const ProgramEnd each = strake({"ckpt", "verify", run().string()});
  EXPECT_EQ(each.exit_code, static_cast<int>(ExitCode::kNoCheckpoint)) << each.output;
  EXPECT_NE(each.output.find(checkpoint(4).string() + ": every byte is as written"), std::string::npos) << each.output;
  EXPECT_EQ(each.errors().size(), 2u) << each.output;
  EXPECT_TRUE(everything() == before) << "a command that reads has changed the run folder";
}

}  // namespace
}  // namespace strake::test
