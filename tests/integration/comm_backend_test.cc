// comm.backend through the real program: what connects the ranks is what was asked for, is said and recorded, and
// changes no bit.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "runtime/base/error.h"
#include "tests/integration/program_job.h"

namespace strake::test {
namespace {

nlohmann::json manifest_of(const ProgramJob& job, const std::string& run) {
  std::ifstream file(job.run_folder(run) / "manifest.json");
  return nlohmann::json::parse(file);
}

TEST(CommBackend, StagedRanksTrainTheSameAndSayThatItIsSlow) {
  const ProgramJob job;
  const ProgramEnd direct = job.train(2, "direct"), staged = job.train(2, "staged", {"comm.backend=staged"});
  ASSERT_EQ(direct.exit_code, 0) << direct.output;
  ASSERT_EQ(staged.exit_code, 0) << staged.output;
  const auto steps = job.metrics("direct").steps, staged_steps = job.metrics("staged").steps;
  ASSERT_EQ(steps.size(), static_cast<std::size_t>(ProgramJob::kSteps));
  ASSERT_EQ(staged_steps.size(), steps.size());
  for (std::size_t i = 0; i < steps.size(); ++i) {
    EXPECT_EQ(staged_steps[i].loss, steps[i].loss) << "step " << i + 1;
    EXPECT_EQ(staged_steps[i].grad_norm, steps[i].grad_norm) << "step " << i + 1;
  }
  EXPECT_NE(
      staged.output.find("comm.backend = staged: what ranks send each other goes through host memory, which is slow"),
      std::string::npos)
      << staged.output;
  EXPECT_NE(staged.output.find(", connected by staged"), std::string::npos) << staged.output;
  EXPECT_EQ(direct.output.find("comm.backend = staged"), std::string::npos) << direct.output;
  EXPECT_NE(direct.output.find(", connected by mpi"), std::string::npos) << direct.output;
  EXPECT_EQ(manifest_of(job, "staged").at("choices").at("communicator"), "staged");
  EXPECT_EQ(manifest_of(job, "staged").at("config").at("comm").at("backend"), "staged");
  EXPECT_EQ(manifest_of(job, "staged").at("config_hash"), manifest_of(job, "direct").at("config_hash"));
}

TEST(CommBackend, ARunGoesOnWithAnother) {
  const ProgramJob job;
  ASSERT_EQ(job.train(2, "straight").exit_code, 0);
  ASSERT_EQ(job.train(2, "cut", {"comm.backend=staged", "train.stop_at=7"}).exit_code, 0);
  const ProgramEnd end = job.train(2, "cut");
  ASSERT_EQ(end.exit_code, 0) << end.output;
  const auto straight = job.metrics("straight").steps, cut = job.metrics("cut").steps;
  ASSERT_EQ(cut.size(), straight.size());
  for (std::size_t i = 0; i < cut.size(); ++i) EXPECT_EQ(cut[i].loss, straight[i].loss) << "step " << i + 1;
}

TEST(CommBackend, TheScheduleAndItsMemoryAreKnownBefore) {
  const ProgramJob job;
  const ProgramEnd end = job.train(2, "none", {"comm.backend=staged", "--print-schedule"});
  ASSERT_EQ(end.exit_code, 0) << end.output;
  EXPECT_NE(end.output.find("communication staging"), std::string::npos) << end.output;
  EXPECT_NE(end.output.find("bucket 0 all-reduce"), std::string::npos) << end.output;
}

TEST(CommBackend, TheScheduleSaysWhatIsExposedByStructure) {
  const ProgramJob job;
  const std::string label = "exposed by structure, final when backward ends: bucket ";
  for (const char* shard : {"none", "optimizer"}) {
    const ProgramEnd end =
        job.train(2, "none", {"--print-schedule", "comm.bucket_mib=1024", fmt::format("train.shard={}", shard)});
    ASSERT_EQ(end.exit_code, 0) << end.output;
    EXPECT_NE(end.output.find(label + "1, "), std::string::npos) << end.output;
  }
  const ProgramEnd alone = job.train(0, "none", {"--print-schedule"});
  ASSERT_EQ(alone.exit_code, 0) << alone.output;
  EXPECT_EQ(alone.output.find("exposed by structure"), std::string::npos) << "nothing travels: " << alone.output;
}

TEST(CommBackend, NcclIsRefusedOnTheCpu) {
  const ProgramJob job;
  for (const int ranks : {0, 2}) {
    const ProgramEnd end = job.train(ranks, "refused", {"comm.backend=nccl", "run.device=cpu"});
    EXPECT_EQ(end.exit_code, static_cast<int>(ExitCode::kConfig)) << end.output;
    ASSERT_EQ(end.errors().size(), 1u) << end.output;
    EXPECT_NE(end.errors()[0].find("comm.backend = nccl"), std::string::npos) << end.output;
  }
}

}  // namespace
}  // namespace strake::test
