// From text to token files and into a run, with the program itself: `strake data prepare`, and data in several files.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "data/byte_tokenizer.h"
#include "data/token_file.h"
#include "runtime/base/error.h"
#include "tests/integration/program_job.h"

namespace strake::test {
namespace {

constexpr int kAlone = 0, kTwoRanks = 2;

class DataPrepare : public testing::Test {
 protected:
  DataPrepare() {
    for (int i = 0; i < 300; ++i) text_ += fmt::format("line {} of a text\n", i);
    std::ofstream(path("a.txt"), std::ios::binary) << text_;
  }
  std::string path(const std::string& name) const { return (folder_.path() / name).string(); }
  ProgramEnd prepare(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), {"data", "prepare"});
    return StrakeProgram::run(kAlone, arguments, folder_.path());
  }
  std::string text_of(const std::string& name) const {
    data::TokenFile file(path(name));
    std::vector<std::int32_t> ids(static_cast<std::size_t>(file.tokens()));
    file.read(0, ids);
    return data::ByteTokenizer::decode(ids);
  }
  void expect_refused(const std::vector<std::string>& arguments, ExitCode code, const std::string& part) const {
    const ProgramEnd end = prepare(arguments);
    EXPECT_EQ(end.exit_code, static_cast<int>(code)) << end.output;
    ASSERT_EQ(end.errors().size(), 1u) << end.output;
    EXPECT_NE(end.errors()[0].find(part), std::string::npos) << end.errors()[0];
  }

  ScratchFolder folder_{ScratchFolder::Where::kMemory};
  std::string text_;
};

TEST_F(DataPrepare, HoldsOutOnlyWhenAFileIsNamedForIt) {
  const ProgramEnd end = prepare({path("a.txt"), "--train", path("all.bin")});
  EXPECT_EQ(end.exit_code, 0) << end.output;
  EXPECT_NE(end.output.find("nothing is held out: --val FILE"), std::string::npos) << end.output;
  EXPECT_EQ(text_of("all.bin"), text_);

  EXPECT_EQ(prepare({path("a.txt"), "--train", path("t.bin"), "--val", path("v.bin")}).exit_code, 0);
  EXPECT_EQ(text_of("t.bin") + text_of("v.bin"), text_);
  EXPECT_NEAR(static_cast<double>(text_of("v.bin").size()), 0.1 * static_cast<double>(text_.size()), 20);
  expect_refused({path("a.txt"), "--train", path("x.bin"), "--val-fraction", "0.2"}, ExitCode::kConfig, "--val");
}

TEST_F(DataPrepare, CountsInWords) {
  std::ofstream(path("two.txt")) << "ab";
  EXPECT_EQ(
      prepare({path("two.txt"), "--train", path("t.bin"), "--val", path("v.bin"), "--val-fraction", "0.5"}).output,
      fmt::format("2 bytes of text\n{}: 1 token to train on\n{}: 1 held-out token\n", path("t.bin"), path("v.bin")));
  std::ofstream(path("one.txt")) << "a";
  const std::string one = prepare({path("one.txt"), "--train", path("t.bin")}).output;
  EXPECT_EQ(one.substr(0, one.find('\n')), "1 byte of text");
}

// With the codes of a mistake in the command, and everything as it was.
TEST_F(DataPrepare, ReplacesNothingThatIsNoTokenFile) {
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  expect_refused({path("a.txt"), "--train", path("pipe")}, ExitCode::kConfig, "pipe\" is a pipe");
  EXPECT_TRUE(std::filesystem::is_fifo(path("pipe")));
  std::filesystem::copy_file(path("a.txt"), path("notes.json"));
  expect_refused({path("notes.json"), "--train", path("notes")}, ExitCode::kConfig, "are one file");
  expect_refused({path("a.txt"), "--train", path("notes")}, ExitCode::kConfig, "is in the way of the sidecar");
  EXPECT_EQ(std::filesystem::file_size(path("notes.json")), text_.size());
  EXPECT_FALSE(std::filesystem::exists(path("notes")));
  ASSERT_EQ(prepare({path("a.txt"), "--train", path("t.bin")}).exit_code, 0);
  expect_refused({path("t.bin"), "--train", path("again.bin")}, ExitCode::kData, "found a token file");
}

TEST_F(DataPrepare, ReadsWhatIsPipedIn) {
  const std::string command = fmt::format("cat '{}' | '{}' data prepare - --train '{}' --val '{}' 2>&1", path("a.txt"),
                                          STRAKE_PROGRAM, path("t.bin"), path("v.bin"));
  ASSERT_EQ(std::system(command.c_str()), 0);
  EXPECT_EQ(text_of("t.bin") + text_of("v.bin"), text_);
  for (const auto& entry : std::filesystem::directory_iterator(folder_.path())) {
    EXPECT_EQ(entry.path().string().find(".tmp"), std::string::npos) << entry.path();
  }
}

TEST_F(DataPrepare, RefusesFoldersAndMakesNone) {
  expect_refused({folder_.path().string(), "--train", path("t.bin")}, ExitCode::kData,
                 fmt::format("found a folder. Name the files in it, as in {}/*.txt", folder_.path().string()));
  expect_refused({path("a.txt"), "--train", path("mistyped/t.bin")}, ExitCode::kConfig,
                 fmt::format("there is no folder \"{}\"", path("mistyped")));
  EXPECT_FALSE(std::filesystem::exists(path("mistyped")));
}

TEST_F(DataPrepare, ExpandsTheHomeFolder) {
  const std::string home = std::getenv("HOME") == nullptr ? "" : std::getenv("HOME");
  ASSERT_EQ(::setenv("HOME", folder_.path().c_str(), 1), 0);
  const ProgramEnd end = prepare({"~/a.txt", "--train", "~/t.bin", "--val=~/v.bin"});
  EXPECT_EQ(end.exit_code, 0) << end.output;
  EXPECT_EQ(::setenv("HOME", home.c_str(), 1), 0);
  EXPECT_EQ(text_of("t.bin") + text_of("v.bin"), text_);
}

TEST_F(DataPrepare, FilesFollowTheUmask) {
  for (const mode_t mask : {0002u, 0077u}) {
    const mode_t before = ::umask(mask);
    const ProgramEnd end = prepare({path("a.txt"), "--train", path("t.bin")});
    ::umask(before);
    ASSERT_EQ(end.exit_code, 0) << end.output;
    for (const char* name : {"t.bin", "t.bin.json"}) {
      struct stat status {};
      ASSERT_EQ(::stat(path(name).c_str(), &status), 0);
      EXPECT_EQ(status.st_mode & 07777, 0666 & ~mask) << name;
    }
  }
}

// How a stream of tokens is cut into files changes nothing: the same samples in the same order, across a resume too.
class DataInSeveralFiles : public testing::TestWithParam<int> {
 protected:
  // The tokens of `file` in pieces `file-1`, `file-2`, ... of these sizes and the rest.
  void cut(const std::filesystem::path& path, const std::vector<std::int64_t>& sizes) {
    data::TokenFile file(path);
    PosixFiles files;
    std::int64_t begin = 0;
    for (std::size_t i = 0; i <= sizes.size(); ++i) {
      const std::int64_t count = i < sizes.size() ? sizes[i] : file.tokens() - begin;
      std::vector<std::int32_t> ids(static_cast<std::size_t>(count));
      file.read(begin, ids);
      begin += count;
      data::TokenFileInfo info = file.info();
      info.source += fmt::format(", part {}", i + 1);
      data::TokenFileWriter writer(files, fmt::format("{}-{}", path.string(), i + 1), info);
      writer.append(ids);
      writer.finish();
      writer.publish();
    }
  }

  ProgramJob job_;
};

TEST_P(DataInSeveralFiles, TrainsTheSameBits) {
  const std::string train = job_.job().train_tokens().string(), val = job_.job().val_tokens().string();
  // Ends within sequences, a file shorter than one, and more than nine of them.
  cut(train, {1000, 5, 1, 333, 334, 400, 400, 400, 400, 400, 16});
  cut(val, {101});
  const std::vector<std::string> lists{"data.train=" + train + "-*", "data.val=" + val + "-1," + val + "-2"};
  const auto with = [&](std::vector<std::string> overrides) {
    overrides.insert(overrides.end(), lists.begin(), lists.end());
    return overrides;
  };
  ASSERT_EQ(job_.train(GetParam(), "one").exit_code, 0);
  const ProgramEnd stopped = job_.train(GetParam(), "several", with({"train.stop_at=6"}));
  ASSERT_EQ(stopped.exit_code, 0) << stopped.output;
  const ProgramEnd resumed = job_.train(GetParam(), "several", with({"checkpoint.resume=true"}));
  ASSERT_EQ(resumed.exit_code, 0) << resumed.output;
  const launch::Metrics one = job_.metrics("one"), several = job_.metrics("several");
  expect_equal_metrics(several, one);

  // Another list is other data.
  const ProgramEnd other = job_.train(GetParam(), "several", {"data.train=" + train, "train.steps=20"});
  EXPECT_EQ(other.exit_code, static_cast<int>(ExitCode::kData)) << other.output;
  EXPECT_NE(other.output.find("data.train had 12 files, has 1"), std::string::npos) << other.output;
}

INSTANTIATE_TEST_SUITE_P(Program, DataInSeveralFiles, testing::Values(kAlone, kTwoRanks),
                         [](const auto& ranks) { return ranks.param == kAlone ? "Alone" : "TwoRanks"; });

}  // namespace
}  // namespace strake::test
