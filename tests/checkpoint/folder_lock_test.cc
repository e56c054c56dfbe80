// Who may use a folder, with other hosts and file systems of every kind. Another host is a text in the lock file and a
// kernel that knows nothing of it; time passes only when the lock waits.
#include "checkpoint/folder_lock.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>

#include "runtime/base/error.h"
#include "runtime/io/forwarding_files.h"
#include "tests/checkpoint/synthetic_run.h"
#include "tests/support/faulty_files.h"
#include "tests/support/gate.h"
#include "tests/support/memory_files.h"
#include "tests/support/scratch_folder.h"

namespace strake::checkpoint {
namespace {

using std::chrono::milliseconds;
using test::LogLines;
using test::MemoryFiles;

const LockHolder kHere{"here", 100, "boot-a"}, kThere{"there", 200, "boot-b"};
const std::filesystem::path kPath = "/run/lock";

// Files of a file system whose locks do not reach other hosts (kUnknown), reach them, or do not exist.
class FilesOfHosts final : public ForwardingFiles {
 public:
  FilesOfHosts(Files& inner, LockReach reach, std::optional<File::Lock> answer)
      : ForwardingFiles(inner), reach_(reach), answer_(answer) {}
  std::unique_ptr<File> open(const std::filesystem::path& path, OpenMode mode) override {
    return std::make_unique<FileOfHosts>(ForwardingFiles::open(path, mode), *this);
  }
  // From now on the kernel's lock is there to be taken.
  void free() { answer_ = File::Lock::kTaken; }
  // Writing fails until further notice.
  void fail(bool on) { fails_ = on; }
  std::int64_t failures() const { return failures_; }

 private:
  class FileOfHosts final : public ForwardingFile {
   public:
    FileOfHosts(std::unique_ptr<File> inner, FilesOfHosts& owner) : ForwardingFile(std::move(inner)), owner_(owner) {}
    Lock try_lock() override { return owner_.answer_ ? *owner_.answer_ : ForwardingFile::try_lock(); }
    LockReach lock_reach() const override { return owner_.reach_; }

   protected:
    std::ptrdiff_t write_some(std::span<const std::byte> bytes, std::uint64_t offset) override {
      if (!owner_.fails_) return ForwardingFile::write_some(bytes, offset);
      ++owner_.failures_;
      return -EIO;
    }

   private:
    FilesOfHosts& owner_;
  };
  LockReach reach_;
  std::optional<File::Lock> answer_;
  std::atomic<bool> fails_{false};  // the lock's thread looks
  std::atomic<std::int64_t> failures_{0};
};

// Stands still but for the waiting itself; what others do meanwhile is done at each wait.
class WaitedClock final : public LockClock {
 public:
  std::function<void(milliseconds)> meanwhile;
  std::chrono::steady_clock::time_point now() override { return now_; }
  void sleep(milliseconds time) override {
    now_ += time;
    if (meanwhile) meanwhile(time);
  }
  double waited_s() const {
    return std::chrono::duration<double>(now_ - std::chrono::steady_clock::time_point()).count();
  }

 private:
  std::chrono::steady_clock::time_point now_;
};

class Locked : public testing::Test {
 protected:
  Locked() { memory_.make_directories("/run"); }

  // The lock as `self` gets it. Its thread does not come to its first sign of life.
  std::unique_ptr<FolderLock> take(Files& files, const LockHolder& self = kHere) {
    return std::make_unique<FolderLock>(
        files, kPath, lines_.log(),
        FolderLock::Parts{.timing = {.beat = std::chrono::hours(1)}, .self = self, .clock = &clock_});
  }
  std::string refusal(Files& files, const LockHolder& self = kHere) {
    try {
      take(files, self);
      return "none";
    } catch (const ConfigError& error) {
      return error.what();
    }
  }
  void put(const std::string& text) { replace_file(memory_, kPath, text); }
  std::string text() { return read_file(memory_, kPath, 1000); }

  MemoryFiles memory_;
  WaitedClock clock_;
  LogLines lines_;
};

void expect_part(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << text;
}

TEST_F(Locked, WhereLocksReachAllHostsAFreeOneIsTakenOverAtOnce) {
  for (const LockReach reach : {LockReach::kOneHost, LockReach::kAllHosts}) {
    FilesOfHosts files(memory_, reach, {});
    put("there 200 boot-b 0000000007\n");
    const auto lock = take(files);
    EXPECT_EQ(clock_.waited_s(), 0);
    expect_part(lines_.all(), "/run: takes over the lock of process 200 on host there, which no longer holds it");
    EXPECT_TRUE(text().starts_with("here 100 boot-a ")) << text();
    EXPECT_NO_THROW(lock->require_held());
    lines_.lines.clear();
  }
}

TEST_F(Locked, AReleasedOneIsTakenWithoutAWord) {
  for (const auto& [reach, answer] : {std::pair<LockReach, std::optional<File::Lock>>{LockReach::kAllHosts, {}},
                                      {LockReach::kUnknown, {}},
                                      {LockReach::kUnknown, File::Lock::kUnsupported}}) {
    FilesOfHosts files(memory_, reach, answer);
    for (const LockHolder& self : {kHere, kThere, kHere}) take(files, self);
    EXPECT_EQ(lines_.all(), "");
    EXPECT_EQ(text(), "");
  }
}

TEST_F(Locked, OneThatGivesSignsOfLifeIsLeftAlone) {
  for (const auto answer : {File::Lock::kTaken, File::Lock::kUnsupported}) {
    FilesOfHosts files(memory_, LockReach::kUnknown, answer);
    const auto holder = take(files, kThere);
    // The holder's clock runs as it likes: its signs of life come 29 s apart by ours.
    milliseconds since{0};
    clock_.meanwhile = [&](milliseconds time) {
      if ((since += time) < milliseconds(29'000)) return;
      since = milliseconds(0);
      EXPECT_TRUE(holder->beat());
    };
    expect_part(refusal(files), "another run is at work in /run: process 200 on host there");
    clock_.meanwhile = {};
    EXPECT_NO_THROW(holder->require_held());
  }
}

TEST_F(Locked, OneWithoutASignOfLifeIsTakenOver) {
  for (const auto answer : {File::Lock::kTaken, File::Lock::kUnsupported}) {
    FilesOfHosts files(memory_, LockReach::kUnknown, answer);
    put("there 200 boot-b 0000000007\n");
    const double before_s = clock_.waited_s();
    const auto lock = take(files);
    const LockTiming timing;
    EXPECT_GE(clock_.waited_s() - before_s, std::chrono::duration<double>(timing.stale).count());
    ASSERT_EQ(lines_.lines.size(), 2u) << lines_.all();
    expect_part(lines_.lines[0], "locked by process 200 on host there; waits up to 30 s");
    expect_part(lines_.lines[1], "takes over the lock of process 200 on host there, which has given no sign of life");
    EXPECT_TRUE(text().starts_with("here 100 boot-a 0")) << text();
    lines_.lines.clear();
  }
}

// It was only slow: it sees that the lock is another's now, and leaves it alone.
TEST_F(Locked, OneThatWasTakenOverKnowsAndWritesNoMore) {
  FilesOfHosts files(memory_, LockReach::kUnknown, {File::Lock::kTaken});
  auto slow = take(files, kThere);
  const auto lock = take(files);
  EXPECT_FALSE(slow->beat());
  expect_part(lines_.lines.back(), "this run has lost its lock to process 100 on host here");
  EXPECT_THROW(slow->require_held(), ConfigError);
  slow.reset();
  EXPECT_NO_THROW(lock->require_held());
  EXPECT_TRUE(lock->beat());
}

TEST_F(Locked, OneWhoseFileWasRemovedKnows) {
  const auto lock = take(memory_);
  memory_.remove(kPath);
  EXPECT_FALSE(lock->beat());
  expect_part(lines_.all(), "/run/lock: the lock of this run is gone");
  EXPECT_FALSE(memory_.exists(kPath)) << "it may be another run's folder by now";
}

// Both have seen the same dead holder. The later write wins; the earlier one sees so before it has done anything.
TEST_F(Locked, OfTwoThatTakeOverAtOnceOneWins) {
  for (const char* left : {"", "dead 300 boot-c 0000000007\n"}) {
    FilesOfHosts files(memory_, LockReach::kUnknown, {File::Lock::kTaken});
    put(left);
    std::unique_ptr<FolderLock> second;
    WaitedClock second_clock;
    clock_.meanwhile = [&](milliseconds) {
      if (second != nullptr || !text().starts_with("here")) return;
      // It had judged the same text; it writes just now.
      const std::string ours = text();
      put(left);
      second = std::make_unique<FolderLock>(
          files, kPath, lines_.log(),
          FolderLock::Parts{.timing = {.beat = std::chrono::hours(1)}, .self = kThere, .clock = &second_clock});
    };
    expect_part(refusal(files), "another run is at work in /run: process 200 on host there");
    ASSERT_NE(second, nullptr);
    EXPECT_NO_THROW(second->require_held());
  }
}

// Whatever call of a take-over its process dies in: the next one gets the lock, in a bounded time, and nobody ever
// finds it free who should not.
TEST_F(Locked, ACrashWhileTakingOverBlocksNobody) {
  std::int64_t calls = 100;  // of a whole take-over
  for (std::int64_t crash = 1; crash <= calls + 1; ++crash) {
    SCOPED_TRACE(fmt::format("crash at call {}", crash));
    put("a-host-with-a-long-name 3000000 boot-c 0000000007\n");
    test::FaultyFiles faulty(memory_);
    faulty.crash_at(crash);
    FilesOfHosts files(faulty, LockReach::kUnknown, {File::Lock::kTaken});
    try {
      const auto lock = take(files, kThere);
      calls = faulty.changing_calls();
      faulty.crash_at(1);  // it dies without releasing it
    } catch (const test::SimulatedCrash&) {
    }
    EXPECT_NE(text(), "") << "it looks released";
    const double before_s = clock_.waited_s();
    FilesOfHosts after(memory_, LockReach::kUnknown, {File::Lock::kTaken});
    EXPECT_NO_THROW(take(after)->require_held());
    EXPECT_GE(clock_.waited_s() - before_s, 30);
    EXPECT_LE(clock_.waited_s() - before_s, 40);
  }
  EXPECT_EQ(calls, 4) << "open, write, cut, sync";
}

TEST_F(Locked, OneOfThisMachineIsJudgedByItsKernel) {
  FilesOfHosts held(memory_, LockReach::kUnknown, {File::Lock::kHeldByOther});
  put("here 101 boot-a 0000000007\n");
  expect_part(refusal(held), "another run is at work in /run: process 101 on host here");
  FilesOfHosts free(memory_, LockReach::kUnknown, {File::Lock::kTaken});
  take(free);
  expect_part(lines_.all(), "takes over the lock of process 101 on host here, which has died");
  EXPECT_LE(clock_.waited_s(), 2) << "only to see that nobody else did the same";
}

TEST_F(Locked, OneThatNeverGivesSignsOfLifeIsNotJudgedByThem) {
  FilesOfHosts files(memory_, LockReach::kUnknown, {File::Lock::kTaken});
  for (const char* left : {"there 200\n", "there 200 boot-b -\n"}) {
    put(left);
    expect_part(refusal(files), "if it is dead, remove /run/lock");
    EXPECT_EQ(clock_.waited_s(), 0);
    EXPECT_EQ(text(), left);
  }
}

// Between taking the lock and writing its name the holder is nameless: a moment is waited for that.
TEST_F(Locked, OneThatHasJustTakenItIsNamedAllTheSame) {
  FilesOfHosts files(memory_, LockReach::kOneHost, {File::Lock::kHeldByOther});
  put("");
  expect_part(refusal(files), "another run is at work in /run: another process");
  EXPECT_LE(clock_.waited_s(), 1);
  put("");
  clock_.meanwhile = [&](milliseconds) { put("here 200 boot-a -\n"); };
  expect_part(refusal(files), "another run is at work in /run: process 200 on host here");
}

// Its host has died: the file server frees its locks when it notices.
TEST_F(Locked, AFileServerIsGivenTimeToFreeTheLockOfADeadHost) {
  FilesOfHosts files(memory_, LockReach::kAllHosts, {File::Lock::kHeldByOther});
  put("there 200 boot-b 0000000007\n");
  clock_.meanwhile = [&](milliseconds) {
    if (clock_.waited_s() >= 90) files.free();
  };
  take(files);
  EXPECT_EQ(clock_.waited_s(), 90);
  // It never does, as over NFS 3: a person must decide.
  FilesOfHosts stuck(memory_, LockReach::kAllHosts, {File::Lock::kHeldByOther});
  put("there 200 boot-b 0000000007\n");
  clock_.meanwhile = {};
  expect_part(refusal(stuck), "has its lock at the file server; if it is dead, remove /run/lock");
  // It lives.
  clock_.meanwhile = [&](milliseconds) { put("there 200 boot-b 0000000008\n"); };
  expect_part(refusal(stuck), "another run is at work in /run: process 200 on host there");
}

TEST_F(Locked, ATornTextIsNobodyWhereTheKernelKnowsAndWaitedForElsewhere) {
  for (const std::string& torn : {std::string("there 2"), std::string("there 200 boot-b 0000\n07\n"),
                                  std::string(" \n"), std::string("a b\n"), std::string(40, '\0')}) {
    put(torn);
    take(memory_);
    put(torn);
    FilesOfHosts files(memory_, LockReach::kUnknown, {File::Lock::kTaken});
    const double before_s = clock_.waited_s();
    take(files);
    EXPECT_GE(clock_.waited_s() - before_s, 30) << torn;
  }
}

// The thread that gives signs of life, with the real clock.
TEST(FolderLock, GivesSignsOfLifeOnlyWhereTheyCount) {
  MemoryFiles memory;
  memory.make_directories("/run");
  const auto text = [&] { return read_file(memory, kPath, 1000); };
  {
    FilesOfHosts files(memory, LockReach::kAllHosts, {});
    const FolderLock lock(files, kPath, [](std::string_view) {}, {.timing = {.beat = milliseconds(1)}, .self = kHere});
    EXPECT_TRUE(test::wait_until([&] { return text() > "here 100 boot-a 0000000003\n"; })) << text();
  }
  EXPECT_EQ(text(), "");
  const FolderLock lock(memory, kPath, [](std::string_view) {}, {.timing = {.beat = milliseconds(1)}, .self = kHere});
  EXPECT_EQ(text(), "here 100 boot-a -\n");
}

// The disk fails for a while: the next sign of life makes up for those missed.
TEST(FolderLock, ASignOfLifeThatFailsIsNotTheLast) {
  MemoryFiles memory;
  memory.make_directories("/run");
  FilesOfHosts files(memory, LockReach::kAllHosts, {});
  const FolderLock lock(files, kPath, [](std::string_view) {}, {.timing = {.beat = milliseconds(1)}, .self = kHere});
  files.fail(true);
  EXPECT_TRUE(test::wait_until([&] { return files.failures() > 5; }));
  const std::string before = read_file(memory, kPath, 1000);
  files.fail(false);
  EXPECT_TRUE(test::wait_until([&] { return read_file(memory, kPath, 1000) > before; }));
}

TEST(LockReach, FollowsFileSystemAndMount) {
  constexpr std::int64_t kExt4 = 0xef53, kXfs = 0x58465342, kTmpfs = 0x01021994, kNfs = 0x6969, kLustre = 0x0bd00bd0,
                         kCeph = 0x00c36400, kFuse = 0x65735546, kBeegfs = 0x19830326;
  for (const std::int64_t local : {kExt4, kXfs, kTmpfs}) EXPECT_EQ(lock_reach(local, ""), LockReach::kOneHost);
  EXPECT_EQ(lock_reach(kNfs, "rw,vers=4.2,hard,local_lock=none,addr=10.0.0.1"), LockReach::kAllHosts);
  EXPECT_EQ(lock_reach(kNfs, "rw,vers=3,local_lock=none"), LockReach::kAllHosts);
  EXPECT_EQ(lock_reach(kNfs, "rw,vers=3,nolock,local_lock=all"), LockReach::kUnknown);
  EXPECT_EQ(lock_reach(kNfs, "rw,vers=3,local_lock=flock"), LockReach::kUnknown);
  EXPECT_EQ(lock_reach(kNfs, ""), LockReach::kUnknown);
  EXPECT_EQ(lock_reach(kLustre, "rw,flock,lazystatfs"), LockReach::kAllHosts);
  EXPECT_EQ(lock_reach(kLustre, "rw,localflock"), LockReach::kUnknown);
  EXPECT_EQ(lock_reach(kCeph, "rw"), LockReach::kAllHosts);
  EXPECT_EQ(lock_reach(kFuse, "rw"), LockReach::kUnknown);
  EXPECT_EQ(lock_reach(kBeegfs, "rw"), LockReach::kUnknown);
}

TEST(LockReach, ReadsTheMountsOptions) {
  const std::string mounts =
      "22 27 0:21 / /proc rw,relatime - proc proc rw\n"
      "40 27 0:44 /a /data/with\\040space rw,nosuid shared:1 master:2 - nfs4 server:/a rw,vers=4.2,local_lock=none\n"
      "41 27 8:1 / / rw - ext4 /dev/sda1 rw,errors=remount-ro\n"
      "42 27 0:45 / /cut rw - nfs\n";
  EXPECT_EQ(mount_options(mounts, "0:44"), "rw,nosuid,rw,vers=4.2,local_lock=none");
  EXPECT_EQ(mount_options(mounts, "8:1"), "rw,rw,errors=remount-ro");
  for (const char* absent : {"0:4", "0:45", "9:9", ""}) EXPECT_EQ(mount_options(mounts, absent), "");
  EXPECT_EQ(mount_options("", "0:44"), "");
}

TEST(LockReach, OfARealFileInMemory) {
  const test::ScratchFolder scratch(test::ScratchFolder::Where::kMemory);
  if (!scratch.path().string().starts_with("/dev/shm")) GTEST_SKIP() << "no /dev/shm on this system";
  PosixFiles files;
  EXPECT_EQ(files.open(scratch.path() / "lock", OpenMode::kOpen)->lock_reach(), LockReach::kOneHost);
}

}  // namespace
}  // namespace strake::checkpoint
