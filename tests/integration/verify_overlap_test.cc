// `strake verify-overlap`, the real program: threads and ranks under mpirun find the same, wrong input is said, and
// nothing is left behind.

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "runtime/base/error.h"
#include "tests/integration/program_job.h"

namespace strake::test {
namespace {

using Json = nlohmann::json;

class VerifyOverlapProgram : public testing::Test {
 protected:
  // `ranks`: under mpirun; 0: without.
  ProgramEnd verify(int ranks, const std::vector<std::string>& more) const {
    std::vector<std::string> arguments{"verify-overlap", job_.config_path().string(), "run.dir=" + run_.string()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return StrakeProgram::run(ranks, arguments, job_.folder());
  }
  static Json parse(const ProgramEnd& end) {
    const Json json = Json::parse(end.output, nullptr, false);
    EXPECT_TRUE(json.is_object()) << end.output;
    return json.is_object() ? json : Json::object();
  }
  void expect_nothing_left_behind() const {
    PosixFiles files;
    for (const std::string& name : files.list(job_.folder())) EXPECT_FALSE(name.starts_with("run")) << name;
  }

  ProgramJob job_;
  const std::filesystem::path run_ = job_.run_folder("run");
};

TEST_F(VerifyOverlapProgram, ComparesEveryVariantOfTheQuickstart) {
  const ProgramEnd end = StrakeProgram::run(
      0,
      {"verify-overlap", STRAKE_SOURCE_FOLDER "/examples/quickstart.toml", "run.dir=" + run_.string(),
       "data.train=" + job_.job().train_tokens().string(), "model.layers=2", "model.channels=16", "model.heads=2",
       "train.sequence=16", "comm.bucket_mib=0.01", "--steps", "3"},
      job_.folder());
  EXPECT_EQ(end.exit_code, 0) << end.output;
  for (const char* part :
       {"1 micro-batch of 16 sequences a rank, 2 ranks\n", "16 micro-batches of 1 sequence a rank, 2 ranks\n",
        "8 micro-batches of 2 sequences a rank, 2 ranks\n", "overlapped, buckets of 0.01 MiB, sharded ",
        "communication late ", "recompute block, sharded ", "69 of 69 variants equal", " of 3 steps'"}) {
    EXPECT_NE(end.output.find(part), std::string::npos) << "no '" << part << "' in:\n" << end.output;
  }
  EXPECT_EQ(end.output.find("FAIL"), std::string::npos) << end.output;
  expect_nothing_left_behind();
}

TEST_F(VerifyOverlapProgram, ThreadsAndProcessesFindTheSame) {
  const std::vector<std::string> options{
      "--json", "--steps", "3", "--variants", "micro-batch 3 x 2", "--variants", "micro-batch 1 x 6: all late"};
  std::vector<std::string> threads = options;
  threads.insert(threads.end(), {"--ranks", "2"});
  const Json as_threads = parse(verify(0, threads)), as_processes = parse(verify(2, options));
  EXPECT_EQ(as_threads.at("format"), "strake-verify-overlap-1");
  EXPECT_EQ(as_threads.at("launcher"), "threads");
  EXPECT_EQ(as_processes.at("launcher"), "mpirun");
  for (const Json& json : {as_threads, as_processes}) {
    EXPECT_EQ(json.at("passed"), true);
    EXPECT_EQ(json.at("failed"), 0);
    EXPECT_EQ(json.at("equal"), 23 + 2);
    ASSERT_EQ(json.at("cells").size(), 2u);
    EXPECT_EQ(json.at("cells")[0].at("micro_batch"), 3);
    EXPECT_EQ(json.at("cells")[0].at("accumulation"), 2);
    EXPECT_EQ(json.at("cells")[0].at("variants")[0].at("verdict"), "reference");
    const Json& last = json.at("cells")[1].at("variants").back();
    EXPECT_EQ(last.at("name"), "all late, sharded");
    EXPECT_EQ(last.at("verdict"), "pass");
    EXPECT_EQ(last.at("shard"), "optimizer");
    EXPECT_EQ(last.at("late_stream"), "all");
    EXPECT_EQ(last.at("reference"), "serial, one bucket");
    EXPECT_GT(last.at("buckets"), 20);
    EXPECT_TRUE(last.at("difference").is_null());
    EXPECT_EQ(last.at("order_reports"), 0);
  }
  for (const char* numbers : {"losses", "gradient_norms"}) {
    const Json values = as_threads.at("cells")[0].at(numbers);
    ASSERT_EQ(values.size(), 3u);
    EXPECT_NE(values[0], values[2]) << "nothing was trained";
    EXPECT_EQ(values, as_processes.at("cells")[0].at(numbers)) << numbers;
  }
  expect_nothing_left_behind();
}

TEST_F(VerifyOverlapProgram, NeedsNoTokens) {
  const ProgramEnd end = verify(0, {"--random-data", "model.vocab=70000", "--ranks", "3", "--steps", "1", "--json",
                                    "train.global_batch=6", "train.micro_batch=2", "--variants", "input late"});
  EXPECT_EQ(end.exit_code, 0) << end.output;
  const Json json = parse(end);
  EXPECT_EQ(json.at("config").at("data").at("train"), "random tokens");
  EXPECT_EQ(json.at("cells")[0].at("ranks"), 3);
}

TEST_F(VerifyOverlapProgram, WrongInputIsReportedOnce) {
  const struct {
    std::vector<std::string> arguments;
    ExitCode code;
    std::string part;
  } cases[] = {
      {{"--variants", "recompute nothing"}, ExitCode::kConfig, "recompute nothing"},
      {{"trian.steps=4"}, ExitCode::kConfig, "train.steps"},
      {{"--random-data"}, ExitCode::kConfig, "set model.vocab"},
      {{"data.train=/nowhere.bin"}, ExitCode::kData, "/nowhere.bin"},
      {{"train.global_batch=3"}, ExitCode::kConfig, "train.global_batch"},
  };
  for (const int ranks : {0, 2}) {
    for (const auto& [arguments, code, part] : cases) {
      const ProgramEnd end = verify(ranks, arguments);
      EXPECT_FALSE(end.hung);
      EXPECT_EQ(end.exit_code, static_cast<int>(code)) << end.output;
      ASSERT_FALSE(end.errors().empty()) << end.output;
      EXPECT_NE(end.errors()[0].find(part), std::string::npos) << end.errors()[0];
      if (part != "recompute nothing") {  // whose message lists all variants, a line each
        EXPECT_EQ(end.errors().size(), 1u) << end.output;
      }
    }
  }
  const ProgramEnd other = verify(2, {"--ranks", "3"});  // than were started
  EXPECT_EQ(other.exit_code, static_cast<int>(ExitCode::kConfig)) << other.output;
  EXPECT_NE(other.output.find("--ranks: the ranks are those that were started"), std::string::npos) << other.output;
  expect_nothing_left_behind();
}

TEST_F(VerifyOverlapProgram, IsStoppedBetweenTwoSteps) {
  StrakeProgram program(0, {"verify-overlap", job_.config_path().string(), "--steps", "100000"}, job_.folder());
  while (program.running() && program.output().find("buckets") == std::string::npos) ::usleep(10'000);
  program.send(SIGINT);
  const ProgramEnd end = program.wait();
  EXPECT_EQ(end.exit_code, static_cast<int>(ExitCode::kInterrupted)) << end.output;
  ASSERT_EQ(end.errors().size(), 1u) << end.output;
  EXPECT_NE(end.errors()[0].find("stopped by SIGINT in variant 'micro-batch 3 x 2: "), std::string::npos)
      << end.errors()[0];
}

}  // namespace
}  // namespace strake::test
