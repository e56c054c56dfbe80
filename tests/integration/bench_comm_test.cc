// `strake bench comm`, the real program, with every backend that needs no GPU.
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "runtime/base/error.h"
#include "tests/integration/strake_program.h"
#include "tests/support/scratch_folder.h"

namespace strake::test {
namespace {

using Json = nlohmann::json;

struct How {
  std::string name;
  int ranks;  // 0: without a launcher
  std::vector<std::string> more;
  std::string backend;
  std::size_t expected_ranks;
};

class BenchComm : public testing::TestWithParam<How> {
 protected:
  ProgramEnd bench(const std::vector<std::string>& more) const {
    std::vector<std::string> arguments{"bench", "comm", "run.device=cpu", "--iterations", "3", "--warmup", "1"};
    arguments.insert(arguments.end(), GetParam().more.begin(), GetParam().more.end());
    arguments.insert(arguments.end(), more.begin(), more.end());
    return StrakeProgram::run(GetParam().ranks, arguments, folder_.path());
  }
  ScratchFolder folder_;
};

TEST_P(BenchComm, MeasuresEveryCollectiveAndChecksIt) {
  const ProgramEnd end = bench({"--min", "1KiB", "--max", "1MiB", "--factor", "32", "--json"});
  ASSERT_EQ(end.exit_code, 0) << end.output;
  const Json json = Json::parse(end.output, nullptr, false);
  ASSERT_TRUE(json.is_object()) << end.output;
  EXPECT_EQ(json.at("format"), "strake-bench-comm-1");
  EXPECT_EQ(json.at("backend"), GetParam().backend);
  EXPECT_EQ(json.at("ranks"), GetParam().expected_ranks);
  EXPECT_EQ(json.at("hosts"), 1);
  std::map<std::string, std::vector<std::int64_t>> sizes;
  for (const Json& result : json.at("results")) {
    sizes[result.at("collective")].push_back(result.at("size_bytes"));
    EXPECT_EQ(result.at("wrong"), 0) << result;
    EXPECT_EQ(result.at("iterations"), 3);
    EXPECT_LE(result.at("time_us").at("low"), result.at("time_us").at("median"));
    EXPECT_LE(result.at("time_us").at("median"), result.at("time_us").at("high"));
  }
  EXPECT_EQ(sizes.size(), 6u);
  EXPECT_EQ(sizes.at("all_reduce"), (std::vector<std::int64_t>{1024, 32768, 1048576}));
  EXPECT_EQ(sizes.at("barrier"), (std::vector<std::int64_t>{0}));
  EXPECT_EQ(sizes.at("all_to_all").size(), 3u);
}

TEST_P(BenchComm, TimesAProductBesideThem) {
  const ProgramEnd end =
      bench({"--only", "all_reduce,barrier", "--min", "64KiB", "--max", "64KiB", "--beside", "96x64x48", "--json"});
  ASSERT_EQ(end.exit_code, 0) << end.output;
  const Json json = Json::parse(end.output, nullptr, false);
  ASSERT_TRUE(json.is_object()) << end.output;
  EXPECT_EQ(json.at("product"), "96x64x48");
  EXPECT_EQ(json.at("results").size(), 2u);
  for (const Json& result : json.at("results")) {
    EXPECT_EQ(result.at("wrong"), 0) << result;
    EXPECT_GT(result.at("beside").at("product_alone_us"), 0) << result;
  }
  EXPECT_EQ(bench({"--beside", "96x64"}).exit_code, static_cast<int>(ExitCode::kConfig));
}

// No NCCL here: a key of NCCL's is no error, and what counts is that it does not.
TEST_P(BenchComm, SaysWhichSwitchesHaveNoEffect) {
  const ProgramEnd end =
      bench({"--only", "all_reduce", "--max", "4KiB", "comm.max_ctas=8", "comm.buffers=symmetric", "comm.spare_sms=4"});
  ASSERT_EQ(end.exit_code, 0) << end.output;
  const bool says = end.output.find(
                        "comm.max_ctas, comm.buffers, comm.spare_sms have no effect: what connects these ranks "
                        "is '" +
                        GetParam().backend + "'") != std::string::npos;
  EXPECT_EQ(says, GetParam().expected_ranks > 1) << end.output;
}

TEST_P(BenchComm, TalksToPeople) {
  const ProgramEnd end = bench({"--only", "all_reduce,broadcast", "--max", "4KiB", "--dtype", "bf16"});
  ASSERT_EQ(end.exit_code, 0) << end.output;
  for (const char* part : {"bench comm: ", "backend ", "busbw GB/s", "#wrong", "all_reduce", "broadcast", "bf16"}) {
    EXPECT_NE(end.output.find(part), std::string::npos) << "no '" << part << "' in:\n" << end.output;
  }
  EXPECT_EQ(end.output.find("all_gather"), std::string::npos) << end.output;
}

TEST_P(BenchComm, RefusesWhatItCannotMeasure) {
  EXPECT_EQ(bench({"--only", "gather"}).exit_code, static_cast<int>(ExitCode::kConfig));
  EXPECT_EQ(bench({"--min", "1MiB", "--max", "1KiB"}).exit_code, static_cast<int>(ExitCode::kConfig));
  EXPECT_EQ(bench({"comm.backend=nccl"}).exit_code, static_cast<int>(ExitCode::kConfig));
}

TEST_P(BenchComm, MoreThanTheHostHasIsRefusedBeforeItIsTaken) {
  for (const char* most : {"100TiB", "1048576TiB"}) {
    const ProgramEnd end = bench({"--only", "all_reduce", "--max", most});
    EXPECT_EQ(end.exit_code, static_cast<int>(ExitCode::kConfig)) << end.output;
    ASSERT_EQ(end.errors().size(), 1u) << end.output;
    for (const char* part : {"out of memory", "are available", "lower --max"}) {
      EXPECT_NE(end.errors()[0].find(part), std::string::npos) << end.errors()[0];
    }
  }
}

// All iterations together take longer than a hang is waited for, none of them does.
TEST(BenchCommSlow, IsNoHang) {
  ScratchFolder folder;
  const ProgramEnd end =
      StrakeProgram::run(2,
                         {"bench", "comm", "run.device=cpu", "run.hang_s=1", "--only", "all_reduce", "--min", "32MiB",
                          "--max", "32MiB", "--iterations", "100000", "--seconds", "8"},
                         folder.path());
  EXPECT_EQ(end.exit_code, 0) << end.output;
}

TEST(BenchCommStopped, IsNoMistakeOfTheProgram) {
  ScratchFolder folder;
  StrakeProgram program(2,
                        {"bench", "comm", "run.device=cpu", "--only", "all_reduce", "--max", "1KiB", "--warmup",
                         "10000", "--iterations", "10000", "--seconds", "3"},
                        folder.path());
  while (program.running() && !program.ranks_handle(SIGUSR1, 2)) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  program.send(SIGUSR1);
  const ProgramEnd end = program.wait();
  EXPECT_EQ(end.exit_code, static_cast<int>(ExitCode::kInterrupted)) << end.output;
  ASSERT_EQ(end.errors().size(), 1u) << end.output;
  EXPECT_NE(end.errors()[0].find("stopped by SIGUSR1"), std::string::npos) << end.output;
}

INSTANTIATE_TEST_SUITE_P(
    Backends, BenchComm,
    testing::Values(How{"Alone", 0, {}, "threads", 1}, How{"Mpi", 2, {}, "mpi", 2},
                    How{"StagedMpi", 2, {"comm.backend=staged"}, "staged", 2},
                    How{"Threads", 0, {"--threads", "3"}, "threads", 3},
                    How{"StagedThreads", 0, {"--threads", "2", "comm.backend=staged"}, "staged", 2}),
    [](const auto& how) { return how.param.name; });

}  // namespace
}  // namespace strake::test
