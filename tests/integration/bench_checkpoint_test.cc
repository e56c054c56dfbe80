// `strake bench checkpoint`, the real program: what it says agrees with itself, and nothing is left behind.

#include <gtest/gtest.h>

#include <csignal>
#include <fstream>
#include <set>
#include <thread>

#include "runtime/base/error.h"
#include "tests/integration/bench_program.h"
#include "tests/support/scratch_folder.h"

namespace strake::test {
namespace {

using Json = nlohmann::json;

class BenchCheckpoint : public BenchProgram {
 protected:
  BenchCheckpoint() : BenchProgram("checkpoint") {}
};

TEST_P(BenchCheckpoint, MeasuresEachStrategyInEachFolder) {
  const ScratchFolder disk, memory(ScratchFolder::Where::kMemory);
  const ProgramEnd end =
      bench({"--strategies", "lazy,sync", "--folder", disk.path().string(), "--folder", memory.path().string(),
             "--every", "5", "--saves", "2", "--repeats", "2", "--failure-hours", "1,24", "--json",
             "checkpoint.writers=2", "checkpoint.direct_io=true"});
  ASSERT_EQ(end.exit_code, 0) << end.output;
  const Json json = parse(end);
  EXPECT_EQ(json.at("format"), "strake-bench-checkpoint-1");
  EXPECT_EQ(json.at("ranks"), expected_ranks());
  EXPECT_EQ(json.at("window"), 4);
  EXPECT_EQ(json.at("config").at("train").at("steps"), ProgramJob::kSteps) << "the config is the user's";
  EXPECT_EQ(json.at("config").at("checkpoint").at("writers"), 2);
  EXPECT_GT(json.at("checkpoint_bytes"), 12 * 1000) << "weights and two moments";
  std::vector<std::pair<std::string, std::string>> rows;
  for (const Json& row : json.at("rows")) {
    rows.emplace_back(row.at("strategy"), row.at("folder"));
    SCOPED_TRACE(rows.back().first + " in " + rows.back().second);
    EXPECT_GT(row.at("undisturbed_step_ms"), 0);
    EXPECT_EQ(row.at("stall_ms").at("samples"), 4) << "two saves, two repeats";
    if (rows.back().first == "none") {
      EXPECT_EQ(row.at("stall_ms").at("high"), 0);
      EXPECT_TRUE(row.at("advice").empty());
      continue;
    }
    EXPECT_GT(row.at("stall_ms").at("low"), 0);
    EXPECT_LE(row.at("snapshot_ms").at("low"), row.at("durable_ms").at("low"));
    EXPECT_LE(row.at("returned_ms").at("low"), row.at("durable_ms").at("low"));
    EXPECT_GT(row.at("write_bytes_per_s"), 0);
    EXPECT_GT(row.at("load_warm_s"), 0);
    EXPECT_EQ(row.at("load_cold_s").is_null(),
              row.at("folder") == memory.path().string() && memory.path().string().starts_with("/dev/shm"));
    ASSERT_EQ(row.at("advice").size(), 2u);
    EXPECT_LE(row.at("advice")[0].at("interval_s"), row.at("advice")[1].at("interval_s"));
    EXPECT_GT(row.at("advice")[0].at("waste"), row.at("advice")[1].at("waste")) << "it fails more often";
  }
  const std::string on_disk = disk.path().string(), in_memory = memory.path().string();
  EXPECT_EQ(rows,
            (std::vector<std::pair<std::string, std::string>>{
                {"none", on_disk}, {"lazy", on_disk}, {"sync", on_disk}, {"lazy", in_memory}, {"sync", in_memory}}));
  EXPECT_TRUE(std::filesystem::is_empty(disk.path()));
  EXPECT_TRUE(std::filesystem::is_empty(memory.path()));
  EXPECT_TRUE(leftovers().empty());
}

TEST_P(BenchCheckpoint, PrintsATable) {
  const ProgramEnd end = bench({"--strategies", "device", "--every", "3", "--saves", "1", "--repeats", "1"});
  ASSERT_EQ(end.exit_code, 0) << end.output;
  for (const char* word : {"bench checkpoint: ", "none ", "device ", "1 saves 3 steps apart", "24 h", "168 h"}) {
    EXPECT_NE(end.output.find(word), std::string::npos) << word << ": " << end.output;
  }
  EXPECT_EQ(end.output.find("inf"), std::string::npos) << "one sample has no interval: " << end.output;
  EXPECT_TRUE(leftovers().empty()) << leftovers().front();
}

// Before any rank says anything to another.
class BenchCheckpointAlone : public BenchCheckpoint {};

TEST_P(BenchCheckpointAlone, RefusesWhatItSetsItself) {
  for (const char* key : {"checkpoint.every=4", "checkpoint.strategy=sync", "checkpoint.at_end=true"}) {
    const ProgramEnd end = bench({"--every", "3", key});
    EXPECT_EQ(end.exit_code, static_cast<int>(ExitCode::kConfig)) << end.output;
    EXPECT_NE(end.output.find(std::string(key) + ": the bench sets it; use --every and --strategies"),
              std::string::npos)
        << end.output;
  }
  // What follows a folder is no second one.
  const ProgramEnd end = bench({"--folder", job_.folder().string(), "train.seed=1"});
  EXPECT_EQ(end.exit_code, static_cast<int>(ExitCode::kConfig)) << end.output;
  EXPECT_NE(end.output.find("train.seed"), std::string::npos) << end.output;
  const ProgramEnd typing = bench({"--folder", "nosuch"});
  EXPECT_EQ(typing.exit_code, static_cast<int>(ExitCode::kConfig)) << typing.output;
  EXPECT_NE(typing.output.find("--folder nosuch: there is no such folder"), std::string::npos) << typing.output;
  EXPECT_TRUE(leftovers().empty());
}

INSTANTIATE_TEST_SUITE_P(Ranks, BenchCheckpoint, testing::Values(0, 2), ranks_name);
INSTANTIATE_TEST_SUITE_P(Ranks, BenchCheckpointAlone, testing::Values(0), ranks_name);

}  // namespace
}  // namespace strake::test
