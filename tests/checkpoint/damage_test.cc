// Every kind of damage to a committed checkpoint is found before the state is touched, and the next older one is used.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <random>

#include "checkpoint/checkpointer.h"
#include "tests/checkpoint/damages.h"
#include "tests/checkpoint/synthetic_run.h"
#include "tests/support/memory_files.h"

namespace strake::checkpoint {
namespace {

namespace fs = std::filesystem;
using test::kDamages;
using test::LoadResult;
using test::LogLines;
using test::MemoryFiles;
using test::NamedDamage;
using test::options_in;
using test::RankEnd;
using test::save_steps;

#ifdef STRAKE_SANITIZED
constexpr unsigned kTrials = 6;
#else
constexpr unsigned kTrials = 40;
#endif
const fs::path kNewest = "/run/ckpt/step-00000020";
const fs::path kOlder = "/run/ckpt/step-00000010";

class Damaged : public ::testing::TestWithParam<NamedDamage> {};
INSTANTIATE_TEST_SUITE_P(Kinds, Damaged, ::testing::ValuesIn(kDamages),
                         [](const auto& value) { return std::string(value.param.name); });

TEST_P(Damaged, IsFoundSetAsideAndSaidInOneLine) {
  for (unsigned seed = 1; seed <= kTrials; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    std::mt19937_64 random(seed);
    MemoryFiles files;
    ASSERT_TRUE(test::all_done(save_steps(files, 2, options_in("/run/ckpt"), {10, 20})));
    GetParam().apply({files, kNewest, kOlder}, random);
    LogLines lines;
    const LoadResult loaded = test::load_newest(files, 1 + static_cast<int>(seed % 3), options_in("/run/ckpt", &lines));
    ASSERT_TRUE(test::all_done(loaded.ends)) << test::describe(loaded.ends);
    ASSERT_EQ(loaded.step, 10);
    ASSERT_TRUE(loaded.exact);
    ASSERT_EQ(lines.lines.size(), 1u) << lines.all();
    EXPECT_NE(lines.all().find("step 20 is damaged"), std::string::npos) << lines.all();
    EXPECT_NE(lines.all().find("trying step 10, 10 steps are lost"), std::string::npos) << lines.all();
    EXPECT_TRUE(files.exists("/run/ckpt/.bad-step-00000020"));
    EXPECT_FALSE(files.exists(kNewest));
  }
}

TEST(DamagedAll, EndsWithTheDocumentedCodeNowAndAtTheNextStart) {
  MemoryFiles files;
  ASSERT_TRUE(test::all_done(save_steps(files, 2, options_in("/run/ckpt"), {10, 20})));
  files.remove(kNewest / "rank-0001.h5");
  files.open(kOlder / "rank-0000.h5", OpenMode::kUpdate)->truncate(9);
  for (int start = 0; start < 2; ++start) {
    for (const RankEnd& end : test::load_newest(files, 2, options_in("/run/ckpt")).ends) {
      EXPECT_EQ(end.code, ExitCode::kNoCheckpoint);
      EXPECT_NE(end.message.find("no valid checkpoint is left"), std::string::npos) << end.message;
    }
  }
}

// The manifest is sound and the tensors' bytes are what the rank wrote, but reading fails: not the checkpoint's fault.
class DeniedFiles final : public ForwardingFiles {
 public:
  using ForwardingFiles::ForwardingFiles;
  std::unique_ptr<File> open(const fs::path& path, OpenMode mode) override {
    if (path.extension() == ".h5") throw io_error("open", path, EACCES);
    return ForwardingFiles::open(path, mode);
  }
};

TEST(Denied, IsNotDamage) {
  MemoryFiles files;
  ASSERT_TRUE(test::all_done(save_steps(files, 2, options_in("/run/ckpt"), {10})));
  DeniedFiles denied(files);
  for (const RankEnd& end : test::load_newest(denied, 2, options_in("/run/ckpt")).ends) {
    EXPECT_EQ(end.code, ExitCode::kStorage) << end.message;
  }
  EXPECT_TRUE(files.exists(kOlder));
}

}  // namespace
}  // namespace strake::checkpoint
