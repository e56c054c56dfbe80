// runtime/io: whole writes through faults, durable replacement, and the models that other tests rely on.
#include "runtime/io/files.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <numeric>
#include <random>
#include <string>

#include "runtime/io/crc32c.h"
#include "tests/support/faulty_files.h"
#include "tests/support/memory_files.h"
#include "tests/support/scratch_folder.h"

namespace strake {
namespace {

namespace fs = std::filesystem;
using test::FaultyFiles;
using test::MemoryFiles;
using test::ScratchFolder;

std::string numbered_text(std::size_t bytes) {
  std::string text(bytes, '\0');
  for (std::size_t i = 0; i < bytes; ++i) text[i] = static_cast<char>('a' + (i * 7 + i / 251) % 26);
  return text;
}

TEST(Crc32c, HasTheCheckValueAndChains) {
  EXPECT_EQ(crc32c(bytes_of("123456789")), 0xE3069283u);
  EXPECT_EQ(crc32c({}), 0u);
  const std::string text = numbered_text(100'003);
  const std::uint32_t whole = crc32c(bytes_of(text));
  for (const std::size_t cut : {std::size_t{0}, std::size_t{1}, std::size_t{4095}, std::size_t{65537}, text.size()}) {
    const std::string_view view = text;
    EXPECT_EQ(crc32c(bytes_of(view.substr(cut)), crc32c(bytes_of(view.substr(0, cut)))), whole) << cut;
  }
  std::string flipped = text;
  flipped[50'000] = static_cast<char>(flipped[50'000] ^ 1);
  EXPECT_NE(crc32c(bytes_of(flipped)), whole);
}

class EitherFiles : public ::testing::TestWithParam<bool> {
 protected:
  ScratchFolder scratch_;
  PosixFiles posix_;
  MemoryFiles memory_;
  Files& files_ = GetParam() ? static_cast<Files&>(posix_) : memory_;
  fs::path folder_ = GetParam() ? scratch_.path() : fs::path("/run");

  void SetUp() override { files_.make_directories(folder_); }
};
INSTANTIATE_TEST_SUITE_P(Files, EitherFiles, ::testing::Bool(),
                         [](const auto& value) { return value.param ? std::string("Posix") : std::string("Memory"); });

TEST_P(EitherFiles, WritesWholeSpansThroughShortWritesAndSignals) {
  FaultyFiles faulty(files_);
  faulty.shorten_writes();
  faulty.interrupt();
  const std::string text = numbered_text(10'001);
  {
    const auto file = faulty.open(folder_ / "a", OpenMode::kCreateNew);
    file->write(bytes_of(std::string_view(text).substr(5000)), 5000);
    file->write(bytes_of(std::string_view(text).substr(0, 5000)), 0);
    file->sync();
    file->close();
  }
  EXPECT_EQ(read_file(faulty, folder_ / "a", 1 << 20), text);
  EXPECT_EQ(read_file(files_, folder_ / "a", 1 << 20), text);
  EXPECT_THROW(read_file(files_, folder_ / "a", 10'000), IoError);
}

TEST_P(EitherFiles, AppendsAndCutsATornTail) {
  {
    const auto file = files_.open(folder_ / "log", OpenMode::kAppend);
    file->append("one\n");
    file->append("two\n");
    file->append("thr");
  }
  {
    const auto file = files_.open(folder_ / "log", OpenMode::kAppend);
    file->truncate(8);
    file->append("three\n");
  }
  EXPECT_EQ(read_file(files_, folder_ / "log", 100), "one\ntwo\nthree\n");
}

TEST_P(EitherFiles, ListsRenamesAndRemoves) {
  files_.make_directories(folder_ / "x" / "y");
  write_file_durably(files_, folder_ / "x" / "y" / "deep", "1");
  write_file_durably(files_, folder_ / "x" / "b", "22");
  write_file_durably(files_, folder_ / "x" / "a", "333");
  EXPECT_EQ(files_.list(folder_ / "x"), (std::vector<std::string>{"a", "b", "y"}));
  EXPECT_EQ(files_.file_size_bytes(folder_ / "x" / "a"), 3u);
  EXPECT_EQ(files_.file_size_bytes(folder_ / "x" / "y"), std::nullopt);
  EXPECT_EQ(files_.file_size_bytes(folder_ / "none"), std::nullopt);
  files_.rename(folder_ / "x", folder_ / "z");
  EXPECT_FALSE(files_.exists(folder_ / "x"));
  EXPECT_EQ(read_file(files_, folder_ / "z" / "y" / "deep", 9), "1");
  EXPECT_THROW(files_.remove(folder_ / "z"), IoError);
  EXPECT_THROW(files_.open(folder_ / "z" / "a", OpenMode::kCreateNew), IoError);
  files_.remove_all(folder_ / "z");
  files_.remove_all(folder_ / "z");
  EXPECT_TRUE(files_.list(folder_).empty());
  EXPECT_GT(files_.free_bytes(folder_), 0u);
}

TEST_P(EitherFiles, AllocatesZeros) {
  const auto file = files_.open(folder_ / "a", OpenMode::kReplace);
  file->allocate(10'000);
  EXPECT_EQ(file->size_bytes(), 10'000u);
  file->write(bytes_of("end"), 9'997);
  std::string content(10'001, 'x');
  EXPECT_EQ(file->read(std::as_writable_bytes(std::span<char>(content)), 0), 10'000u);
  EXPECT_EQ(content.substr(0, 10'000), std::string(9'997, '\0') + "end");
}

TEST_P(EitherFiles, LockIsHeldUntilClosed) {
  auto first = files_.open(folder_ / "lock", OpenMode::kOpen);
  const auto second = files_.open(folder_ / "lock", OpenMode::kOpen);
  EXPECT_EQ(first->try_lock(), File::Lock::kTaken);
  EXPECT_EQ(second->try_lock(), File::Lock::kHeldByOther);
  first.reset();
  EXPECT_EQ(second->try_lock(), File::Lock::kTaken);
}

TEST(PosixFiles, ErrorsNamePathCauseAndRemedy) {
  PosixFiles files;
  try {
    files.open("/nonexistent-strake/file", OpenMode::kRead);
    FAIL() << "opened";
  } catch (const IoError& error) {
    EXPECT_EQ(error.error_number, ENOENT);
    EXPECT_EQ(error.path, "/nonexistent-strake/file");
    EXPECT_NE(std::string(error.what()).find("/nonexistent-strake/file: cannot open: No such file"), std::string::npos)
        << error.what();
  }
  EXPECT_NE(std::string(io_error("write", "a", ENOSPC).what()).find("free space"), std::string::npos);
  EXPECT_EQ(io_error("write", "a", ENOSPC).exit_code(), ExitCode::kStorage);
}

TEST(PosixFiles, ARealFullDiskIsReported) {
  PosixFiles files;
  if (!files.exists("/dev/full")) GTEST_SKIP() << "no /dev/full on this system";
  const auto file = files.open("/dev/full", OpenMode::kUpdate);
  try {
    file->write(bytes_of("x"), 0);
    FAIL() << "written";
  } catch (const IoError& error) {
    EXPECT_EQ(error.error_number, ENOSPC);
  }
}

// With no other end there is nothing to wait for.
TEST(PosixFiles, APipeIsRefusedAtOnce) {
  ScratchFolder folder;
  PosixFiles files;
  const fs::path pipe = folder.path() / "config.json";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  for (const OpenMode mode : {OpenMode::kRead, OpenMode::kUpdate, OpenMode::kReplace, OpenMode::kAppend}) {
    try {
      files.open(pipe, mode);
      FAIL() << "opened";
    } catch (const IoError& error) {
      EXPECT_TRUE(error.wrong_path());
      EXPECT_NE(std::string(error.what()).find("is a pipe"), std::string::npos) << error.what();
    }
  }
  EXPECT_THROW(read_file(files, pipe, 1 << 20), IoError);
}

TEST(PosixFiles, WritesThroughNoLink) {
  const ScratchFolder scratch;
  PosixFiles files;
  files.make_directories(scratch.path() / "sub");
  write_file_durably(files, scratch.path() / "sub" / "target", "kept");
  ASSERT_EQ(::symlink("target", (scratch.path() / "sub" / "link").c_str()), 0);
  ASSERT_EQ(::symlink("sub", (scratch.path() / "link").c_str()), 0);
  EXPECT_THROW(files.open(scratch.path() / "sub" / "link", OpenMode::kReplace), IoError);
  files.remove_all(scratch.path() / "link");  // the link goes, what it names stays
  EXPECT_EQ(read_file(files, scratch.path() / "sub" / "target", 9), "kept");
}

// 027 keeps a group's data in the group, 002 shares it, 077 with nobody.
TEST(PosixFiles, RightsAreWhatTheUmaskLeaves) {
  const auto rights = [](const fs::path& path) {
    struct stat status {};
    EXPECT_EQ(::stat(path.c_str(), &status), 0);
    return status.st_mode & 07777;
  };
  PosixFiles files;
  for (const mode_t mask : {0027u, 0002u, 0022u, 0077u}) {
    const ScratchFolder scratch;
    const fs::path folder = scratch.path() / "sub", below = folder / "sub", file = below / "written";
    const mode_t before = ::umask(mask);
    files.make_directories(below);
    write_file_durably(files, file, "x");
    for (const OpenMode mode : {OpenMode::kOpen, OpenMode::kCreateNew, OpenMode::kReplace, OpenMode::kAppend}) {
      files.open(below / std::to_string(static_cast<int>(mode)), mode);
    }
    ::umask(before);
    EXPECT_EQ(rights(folder), 0777 & ~mask);
    EXPECT_EQ(rights(below), 0777 & ~mask);
    for (const std::string& name : files.list(below)) EXPECT_EQ(rights(below / name), 0666 & ~mask) << name;
    EXPECT_EQ(files.list(below).size(), 5u);
  }
}

// A replaced file holds the old or the new content whatever call the process dies in and whatever the power takes.
TEST(WriteFileDurably, IsOldOrNewAfterAnyCrashAndPowerLoss) {
  for (std::int64_t crash = 1; crash <= 20; ++crash) {
    for (unsigned seed = 0; seed < 20; ++seed) {
      std::mt19937 random(seed);
      MemoryFiles memory;
      memory.make_directories("/d");
      const std::string before = numbered_text(9000);
      const std::string after = numbered_text(12'000) + "new";
      write_file_durably(memory, "/d/f", before);
      FaultyFiles faulty(memory);
      faulty.crash_at(crash);
      bool returned = false;
      try {
        write_file_durably(faulty, "/d/f", after);
        returned = true;
      } catch (const test::SimulatedCrash&) {
      }
      memory.power_loss(random);
      const std::string found = read_file(memory, "/d/f", 1 << 20);
      EXPECT_TRUE(found == after || (!returned && found == before)) << "crash " << crash << " seed " << seed;
    }
  }
}

// The same test fails if any one sync is a lie: each of them is needed.
TEST(WriteFileDurably, NeedsEverySync) {
  MemoryFiles counted_memory;
  counted_memory.make_directories("/d");
  FaultyFiles counted(counted_memory);
  write_file_durably(counted, "/d/f", "x");
  ASSERT_EQ(counted.syncs(), 2);
  for (std::int64_t ignored = 1; ignored <= counted.syncs(); ++ignored) {
    int caught = 0;
    for (unsigned seed = 0; seed < 40; ++seed) {
      std::mt19937 random(seed);
      MemoryFiles memory;
      memory.make_directories("/d");
      FaultyFiles faulty(memory);
      faulty.ignore_sync(ignored);
      const std::string text = numbered_text(9000);
      write_file_durably(faulty, "/d/f", text);
      memory.power_loss(random);
      if (!memory.exists("/d/f") || read_file(memory, "/d/f", 1 << 20) != text) ++caught;
    }
    EXPECT_GT(caught, 0) << "sync " << ignored << " is not needed";
  }
}

}  // namespace
}  // namespace strake
