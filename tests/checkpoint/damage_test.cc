// Every kind of damage to a committed checkpoint is found before the state is touched, and the next older one is used.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <random>

#include "checkpoint/checkpointer.h"
#include "tests/checkpoint/synthetic_run.h"
#include "tests/support/memory_files.h"

namespace strake::checkpoint {
namespace {

namespace fs = std::filesystem;
using test::LoadResult;
using test::LogLines;
using test::MemoryFiles;
using test::options_in;
using test::RankEnd;
using test::save_steps;

#ifdef STRAKE_SANITIZED
constexpr unsigned kTrials = 6;
#else
constexpr unsigned kTrials = 40;
#endif
constexpr std::uint64_t kWhole = 1 << 26;

void overwrite(Files& files, const fs::path& path, const std::string& content) {
  files.open(path, OpenMode::kReplace)->write(bytes_of(content), 0);
}

const fs::path kNewest = "/run/ckpt/step-00000020";
const fs::path kOlder = "/run/ckpt/step-00000010";

using Damage = void (*)(Files&, std::mt19937&);
struct NamedDamage {
  const char* name;
  Damage apply;
};

fs::path any_file(std::mt19937& random, const fs::path& folder = kNewest) {
  static const char* const kNames[] = {"rank-0000.h5", "rank-0001.h5", "manifest.json"};
  return folder / kNames[random() % 3];
}
fs::path shard(std::size_t rank, const fs::path& folder = kNewest) {
  return folder / fmt::format("rank-{:04d}.h5", rank);
}

const NamedDamage kDamages[] = {
    {"Truncated",
     [](Files& files, std::mt19937& random) {
       const fs::path path = any_file(random);
       files.open(path, OpenMode::kUpdate)->truncate(random() % *files.file_size_bytes(path));
     }},
    {"Extended",
     [](Files& files, std::mt19937& random) {
       const fs::path path = any_file(random);
       files.open(path, OpenMode::kUpdate)->truncate(*files.file_size_bytes(path) + 1 + random() % 5000);
     }},
    {"OneBitFlipped",
     [](Files& files, std::mt19937& random) {
       const fs::path path = any_file(random);
       std::string content = read_file(files, path, kWhole);
       content[random() % content.size()] ^= static_cast<char>(1 << random() % 8);
       overwrite(files, path, content);
     }},
    {"PageZeroed",
     [](Files& files, std::mt19937& random) {
       const fs::path path = shard(random() % 2);
       std::string content = read_file(files, path, kWhole);
       const std::string before = content;
       while (content == before) {
         const std::size_t page = random() % (content.size() / 4096 + 1) * 4096;
         content.replace(page, 4096, std::min<std::size_t>(4096, content.size() - page), '\0');
       }
       overwrite(files, path, content);
     }},
    {"ShardsSwapped",
     [](Files& files, std::mt19937&) {
       files.rename(shard(0), kNewest / "x");
       files.rename(shard(1), shard(0));
       files.rename(kNewest / "x", shard(1));
     }},
    {"ShardDuplicated",
     [](Files& files, std::mt19937& random) {
       const std::size_t from = random() % 2;
       overwrite(files, shard(1 - from), read_file(files, shard(from), kWhole));
     }},
    {"FileMissing", [](Files& files, std::mt19937& random) { files.remove(any_file(random)); }},
    {"FileIsAFolder",
     [](Files& files, std::mt19937& random) {
       const fs::path path = any_file(random);
       files.remove(path);
       files.make_directory(path);
     }},
    {"FileOfAnotherStep",
     [](Files& files, std::mt19937& random) {
       const fs::path path = any_file(random);
       overwrite(files, path, read_file(files, kOlder / path.filename(), kWhole));
     }},
    {"AllOfAnotherStep",
     [](Files& files, std::mt19937&) {
       for (const std::string& name : files.list(kOlder)) {
         overwrite(files, kNewest / name, read_file(files, kOlder / name, kWhole));
       }
     }},
};

class Damaged : public ::testing::TestWithParam<NamedDamage> {};
INSTANTIATE_TEST_SUITE_P(Kinds, Damaged, ::testing::ValuesIn(kDamages),
                         [](const auto& value) { return std::string(value.param.name); });

TEST_P(Damaged, IsFoundSetAsideAndSaidInOneLine) {
  for (unsigned seed = 1; seed <= kTrials; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    std::mt19937 random(seed);
    MemoryFiles files;
    ASSERT_TRUE(test::all_done(save_steps(files, 2, options_in("/run/ckpt"), {10, 20})));
    GetParam().apply(files, random);
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
  files.remove(shard(1));
  files.open(shard(0, kOlder), OpenMode::kUpdate)->truncate(9);
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
