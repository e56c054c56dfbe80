// What survives: errors at every call, crashes at every call with power loss, processes killed at every failpoint.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>
#include <optional>
#include <random>

#include "checkpoint/checkpointer.h"
#include "tests/checkpoint/synthetic_run.h"
#include "tests/support/faulty_files.h"
#include "tests/support/memory_files.h"
#include "tests/support/scratch_folder.h"

namespace strake::checkpoint {
namespace {

namespace fs = std::filesystem;
using test::FaultyFiles;
using test::LoadResult;
using test::LogLines;
using test::MemoryFiles;
using test::options_in;
using test::RankEnd;
using test::run_ranks;
using test::save_steps;
using test::ScratchFolder;
using test::SyntheticRank;

// Under sanitizers, which slow every trial down, fewer random ones; each call and each sync still has its turn.
#ifdef STRAKE_SANITIZED
constexpr unsigned kPowerLosses = 3;
const std::vector<int> kWorlds = {2};
#else
constexpr unsigned kPowerLosses = 20;
const std::vector<int> kWorlds = {1, 3};
#endif

// Who writes: the training thread, or one beside it.
constexpr StrategyKind kWriters[] = {StrategyKind::kSync, StrategyKind::kLazy};

// ---- Errors.

enum class Trouble { kOnce, kDiskFull };
// A full disk and a full quota are one to threads and memory.
const std::vector<std::pair<int, Trouble>> kTroubles = {{EIO, Trouble::kOnce},
                                                        {ENOSPC, Trouble::kDiskFull},
#ifndef STRAKE_SANITIZED
                                                        {EDQUOT, Trouble::kDiskFull}
#endif
};

// Saves step 10, then step 20 with call `number` failing, then step 30 in health, as one run. Returns the changing
// calls that saving step 20 made.
std::int64_t save_through_error(StrategyKind strategy, int ranks, std::int64_t number, int error_number,
                                Trouble trouble) {
  MemoryFiles memory;
  FaultyFiles faulty(memory);
  LogLines lines;
  Options options = options_in("/run/ckpt", &lines);
  options.strategy = strategy;
  std::vector<RankEnd> second(static_cast<std::size_t>(ranks));
  std::int64_t calls = 0;
  const auto ends = run_ranks(ranks, [&](int rank, comm::Control& control) {
    SyntheticRank state(rank, ranks);
    auto checkpointer = state.make_checkpointer(faulty, control, options);
    state.save(*checkpointer, 10);
    control.barrier();
    if (rank == 0) {
      faulty.restart_count();
      if (trouble == Trouble::kOnce) faulty.fail_at(number, error_number);
      if (trouble == Trouble::kDiskFull) faulty.fill_disk_at(number, error_number);
    }
    control.barrier();
    RankEnd& end = second[static_cast<std::size_t>(rank)];
    try {
      state.save(*checkpointer, 20);
    } catch (const IoError& error) {
      end = {RankEnd::Kind::kError, error.exit_code(), error.what()};
      EXPECT_EQ(error.error_number, error_number);
      EXPECT_TRUE(state.holds(20));  // training goes on with what it had
    }
    control.barrier();
    if (rank == 0) {
      calls = faulty.changing_calls();
      faulty.heal();
      // Committed or not is one thing for all ranks and for the folder, and the one before is whole.
      const auto found = list_checkpoints(memory, "/run/ckpt");
      EXPECT_TRUE(std::all_of(found.begin(), found.end(), [](const auto& summary) { return summary.complete; }));
      EXPECT_EQ(found.front().step, end.kind == RankEnd::Kind::kDone ? 20 : 10);
    }
    control.barrier();
    state.save(*checkpointer, 30);
  });
  EXPECT_TRUE(test::all_done(ends)) << test::describe(ends);
  for (const RankEnd& end : second) EXPECT_EQ(end.kind, second.front().kind) << test::describe(second);
  const LoadResult loaded = test::load_newest(memory, ranks, options);
  EXPECT_EQ(loaded.step, 30);
  EXPECT_TRUE(loaded.exact);
  // At most one line: of tidying up, after the fact.
  EXPECT_LE(lines.lines.size(), 1u) << lines.all();
  return calls;
}

TEST(Errors, AtEveryCallCostOneCheckpointAndNothingElse) {
  for (const StrategyKind strategy : kWriters) {
    for (const int ranks : kWorlds) {
      for (const auto& [error_number, trouble] : kTroubles) {
        std::int64_t number = 1;
        while (true) {
          SCOPED_TRACE(fmt::format("{}, {} ranks, errno {}, call {}", name_of(strategy), ranks, error_number, number));
          const std::int64_t calls = save_through_error(strategy, ranks, number, error_number, trouble);
          if (::testing::Test::HasFailure()) return;
          if (number > calls) break;
          ++number;
        }
        EXPECT_GT(number, 20);  // the loop met the calls of a whole save
      }
    }
  }
}

TEST(Errors, ShortWritesAndSignalsAreNoErrors) {
  MemoryFiles memory;
  FaultyFiles faulty(memory);
  faulty.shorten_writes();
  faulty.interrupt();
  ASSERT_TRUE(test::all_done(save_steps(faulty, 2, options_in("/run/ckpt"), {10})));
  const LoadResult loaded = test::load_newest(faulty, 3, options_in("/run/ckpt"));
  EXPECT_EQ(loaded.step, 10);
  EXPECT_TRUE(loaded.exact);
}

// ---- Crash and power loss.

constexpr std::int64_t kNever = 0;

// One rank saves steps 10 and 20 keeping one, dies on entering changing call `crash`, the machine loses power. Returns
// what is wrong with what is left; nothing: empty. `calls` and `syncs` are those that were made.
std::string crash_and_look(StrategyKind strategy, std::int64_t crash, std::int64_t ignored_sync, unsigned seed,
                           std::int64_t* calls, std::int64_t* syncs) {
  MemoryFiles memory;
  FaultyFiles faulty(memory);
  faulty.crash_at(crash);
  faulty.ignore_sync(ignored_sync);
  Options options = options_in("/run/ckpt");
  options.keep = 1;
  options.strategy = strategy;
  std::int64_t reported = -1;
  run_ranks(1, [&](int, comm::Control& control) {
    SyntheticRank state(0, 1, {{"param/wte", DType::kF32, {57, 13}}, {"adam_m/wte", DType::kF32, {2'000}}});
    auto checkpointer = state.make_checkpointer(faulty, control, options);
    for (const std::int64_t step : {10, 20}) {
      state.save(*checkpointer, step);
      reported = step;
    }
  });
  if (calls != nullptr) *calls = faulty.changing_calls();
  if (syncs != nullptr) *syncs = faulty.syncs();
  std::mt19937 random(seed);
  memory.power_loss(random);

  for (const CheckpointSummary& found : list_checkpoints(memory, "/run/ckpt")) {
    if (!found.complete) return "a committed name stands for a part: " + found.problem;
  }
  if (memory.exists("/run/ckpt/LATEST")) {
    const std::string latest = read_file(memory, "/run/ckpt/LATEST", 100);
    if (latest != "step-00000010\n" && latest != "step-00000020\n") return "LATEST is torn: '" + latest + "'";
  }
  std::string wrong;
  const auto ends = run_ranks(1, [&](int, comm::Control& control) {
    SyntheticRank state(0, 1, {{"param/wte", DType::kF32, {57, 13}}, {"adam_m/wte", DType::kF32, {2'000}}});
    auto checkpointer = state.make_checkpointer(memory, control, options);
    const auto meta = checkpointer->load_newest(test::model_text());
    const std::int64_t step = meta ? meta->step : -1;
    if (step < reported) wrong = fmt::format("step {} was reported durable, step {} is left", reported, step);
    if (meta && !state.holds(step)) wrong = fmt::format("torn state accepted as step {}", step);
    for (const std::string& name : memory.list("/run/ckpt")) {
      if (name.find("tmp-") != name.npos || name.starts_with(".trash")) wrong = "left over: " + name;
    }
  });
  if (!test::all_done(ends)) wrong = "the next start fails: " + test::describe(ends);
  return wrong;
}

TEST(PowerLoss, AtEveryCallLeavesWhatWasReportedDurable) {
  for (const StrategyKind strategy : kWriters) {
    std::int64_t calls = 0;
    ASSERT_EQ(crash_and_look(strategy, kNever, 0, 1, &calls, nullptr), "");
    ASSERT_GT(calls, 40);
    for (std::int64_t crash = 1; crash <= calls + 1; ++crash) {
      for (unsigned seed = 0; seed < kPowerLosses; ++seed) {
        ASSERT_EQ(crash_and_look(strategy, crash, 0, seed, nullptr, nullptr), "")
            << name_of(strategy) << ", crash at call " << crash << ", seed " << seed;
      }
    }
  }
}

// The test above is worth something: with any one sync turned into a lie it finds damage.
TEST(PowerLoss, EverySyncIsNeeded) {
#ifdef STRAKE_TSAN
  GTEST_SKIP() << "a question of disks, not of threads";
#endif
  for (const StrategyKind strategy : kWriters) {
    std::int64_t calls = 0;
    std::int64_t syncs = 0;
    ASSERT_EQ(crash_and_look(strategy, kNever, 0, 1, &calls, &syncs), "");
    ASSERT_GE(syncs, 12);
    for (std::int64_t ignored = 1; ignored <= syncs; ++ignored) {
      bool caught = false;
      for (unsigned seed = 0; seed < 200 && !caught; ++seed) {
        for (std::int64_t crash = 1; crash <= calls + 1 && !caught; ++crash) {
          caught = !crash_and_look(strategy, crash, ignored, seed, nullptr, nullptr).empty();
        }
      }
      EXPECT_TRUE(caught) << name_of(strategy) << ", sync " << ignored << " of " << syncs << " could be left out";
    }
  }
}

// ---- A peer that dies.

// Ends the world when rank 0 passes a place.
class AbortAt final : public Failpoints {
 public:
  AbortAt(comm::Control& control, std::string place) : control_(control), place_(std::move(place)) {}
  void hit(std::string_view name) override {
    if (name == place_) control_.abort(16);
  }

 private:
  comm::Control& control_;
  std::string place_;
};

TEST(DeadPeer, TakesNothingDurableWithItAndLeavesNothingHalf) {
  for (const StrategyKind strategy : kWriters) {
    for (const auto& [place, left] : {std::pair<std::string, std::int64_t>{"ckpt.report", 10}, {"ckpt.durable", 20}}) {
      SCOPED_TRACE(fmt::format("{}, at {}", name_of(strategy), place));
      MemoryFiles memory;
      const auto ends = run_ranks(2, [&, place = place](int rank, comm::Control& control) {
        SyntheticRank state(rank, 2);
        AbortAt failpoints(control, place);
        Options options = options_in("/run/ckpt");
        options.strategy = strategy;
        auto first = state.make_checkpointer(memory, control, options);
        state.save(*first, 10);
        first.reset();
        Arena host("staging", MemoryKind::kHost);
        if (rank == 0) options.failpoints = &failpoints;
        Checkpointer second(memory, control, state.device(), state.copy_out(), {host}, state.table(), options);
        host.allocate(state.device());
        state.save(second, 20);
      });
      for (const RankEnd& end : ends) EXPECT_EQ(end.code, ExitCode::kPeerOrDeviceLost) << test::describe(ends);
      const LoadResult loaded = test::load_newest(memory, 2, options_in("/run/ckpt"));
      EXPECT_EQ(loaded.step, left) << place;
      EXPECT_TRUE(loaded.exact);
    }
  }
}

// ---- Kill -9.

// Kills the process at the n-th failpoint that `rank` passes, or only counts and remembers names. The training thread
// passes its places before the one that writes passes its own.
class KillAt final : public Failpoints {
 public:
  explicit KillAt(std::int64_t number) : number_(number) {}
  void hit(std::string_view name) override {
    const std::lock_guard lock(mutex_);
    names_.emplace_back(name);
    if (static_cast<std::int64_t>(names_.size()) == number_) ::kill(::getpid(), SIGKILL);
  }
  const std::vector<std::string>& names() const { return names_; }

 private:
  std::int64_t number_;
  std::mutex mutex_;
  std::vector<std::string> names_;
};

// Two ranks save steps 10, 20 and 30 keeping one; rank `victim` passes its failpoints through `failpoints`.
std::vector<RankEnd> save_three(StrategyKind strategy, Files& files, const fs::path& directory, int victim,
                                Failpoints& failpoints) {
  return run_ranks(2, [&](int rank, comm::Control& control) {
    SyntheticRank state(rank, 2);
    Options options = options_in(directory);
    options.keep = 1;
    options.strategy = strategy;
    if (rank == victim) options.failpoints = &failpoints;
    auto checkpointer = state.make_checkpointer(files, control, options);
    for (const std::int64_t step : {10, 20, 30}) state.save(*checkpointer, step);
  });
}

class Kill : public testing::TestWithParam<StrategyKind> {};
INSTANTIATE_TEST_SUITE_P(Strategies, Kill,
                         testing::Values(StrategyKind::kSync, StrategyKind::kPinned, StrategyKind::kLazy,
                                         StrategyKind::kDevice),
                         [](const auto& kind) { return std::string(name_of(kind.param)); });

TEST_P(Kill, AtEveryFailpointOfEveryRankLeavesAWholeState) {
  PosixFiles files;
  for (const int victim : {0, 1}) {
    // Of a save.
    const char* first = GetParam() == StrategyKind::kSync && victim == 0 ? "ckpt.preflight" : "ckpt.snap.begin";
    std::vector<std::string> names;
    {
      const ScratchFolder scratch(ScratchFolder::Where::kMemory);
      KillAt nobody(0);
      ASSERT_TRUE(test::all_done(save_three(GetParam(), files, scratch.path(), victim, nobody)));
      names = nobody.names();
    }
    if (victim == 0) {  // the protocol's places are all there
      for (const char* name : {"ckpt.preflight", "ckpt.snap.begin", "ckpt.snap.mid", "ckpt.snap.end", "ckpt.write.0",
                               "ckpt.write.3", "ckpt.fsync.before", "ckpt.fsync.after", "ckpt.report", "ckpt.vote",
                               "ckpt.cover", "ckpt.manifest.renamed", "ckpt.manifest.synced", "ckpt.rename",
                               "ckpt.durable", "ckpt.latest", "ckpt.prune.before", "ckpt.prune.mid"}) {
        EXPECT_NE(std::find(names.begin(), names.end(), name), names.end()) << name;
      }
    }
    std::int64_t committed = -1;  // by when the n-th failpoint is reached
    std::int64_t saving = 0;
    for (std::size_t n = 1; n <= names.size(); ++n) {
      SCOPED_TRACE(fmt::format("rank {} killed at its failpoint {} ({})", victim, n, names[n - 1]));
      if (names[n - 1] == first) {
        if (saving > 0) committed = saving;
        saving += 10;
      }
      if (names[n - 1] == "ckpt.durable") committed = saving;
      const ScratchFolder scratch(ScratchFolder::Where::kMemory);
      const pid_t child = ::fork();
      ASSERT_GE(child, 0);
      if (child == 0) {
        KillAt killer(static_cast<std::int64_t>(n));
        save_three(GetParam(), files, scratch.path(), victim, killer);
        ::_exit(1);
      }
      int status = 0;
      ASSERT_EQ(::waitpid(child, &status, 0), child);
      ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
      const LoadResult loaded = test::load_newest(files, 2, options_in(scratch.path()));
      ASSERT_TRUE(test::all_done(loaded.ends)) << test::describe(loaded.ends);
      EXPECT_TRUE(loaded.exact);
      EXPECT_GE(loaded.step, committed);
      EXPECT_LE(loaded.step, saving);
      for (const std::string& name : files.list(scratch.path())) {
        EXPECT_TRUE(step_of(name) || name == "LATEST" || name == "LATEST.tmp" || name == "lock") << name;
      }
    }
  }
}

}  // namespace
}  // namespace strake::checkpoint
