#include "checkpoint/checkpointer.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <set>

#include "checkpoint/reader.h"
#include "checkpoint/shard_plan.h"
#include "runtime/device/order_checker.h"
#include "runtime/io/forwarding_files.h"
#include "tests/checkpoint/synthetic_run.h"
#include "tests/support/faulty_device.h"
#include "tests/support/faulty_files.h"
#include "tests/support/gate.h"
#include "tests/support/memory_files.h"
#include "tests/support/scratch_folder.h"

namespace strake::checkpoint {
namespace {

namespace fs = std::filesystem;
using test::LoadResult;
using test::LogLines;
using test::MemoryFiles;
using test::options_in;
using test::RankEnd;
using test::run_ranks;
using test::save_steps;
using test::ScratchFolder;
using test::SyntheticRank;

TEST(ShardPlan, CutsEqualBytesAndCoversEachElementOnce) {
  for (int ranks = 1; ranks <= 8; ++ranks) {
    std::vector<std::vector<HeldRange>> held(static_cast<std::size_t>(ranks));
    for (auto& ranges : held) {
      ranges = {{"a", DType::kF32, {57, 13}, 0, 741, true},
                {"b", DType::kBF16, {7}, 0, 7, true},
                {"c", DType::kF64, {1}, 0, 1, true},
                {"d", DType::kF32, {50'257, 3}, 0, 150'771, true}};
    }
    const auto plan = plan_shards(held);
    std::vector<std::uint64_t> bytes;
    std::vector<std::set<std::int64_t>> seen(4);
    std::vector<std::int64_t> covered(4, 0);
    for (std::size_t rank = 0; rank < plan.size(); ++rank) {
      std::uint64_t sum = 0;
      for (const PlannedRange& range : plan[rank]) {
        sum += static_cast<std::uint64_t>(range.elems) * size_bytes(held[rank][range.entry].dtype);
        covered[range.entry] += range.elems;
        EXPECT_TRUE(seen[range.entry].insert(range.begin_elems).second);
      }
      bytes.push_back(sum);
    }
    for (std::size_t entry = 0; entry < 4; ++entry) EXPECT_EQ(covered[entry], held[0][entry].elems);
    // At most one element of the widest type from an even cut, at either end.
    EXPECT_LE(*std::max_element(bytes.begin(), bytes.end()) - *std::min_element(bytes.begin(), bytes.end()), 16u);
  }
}

TEST(Checkpointer, WithNothingThereLoadsNothing) {
  MemoryFiles files;
  const LoadResult loaded = test::load_newest(files, 2, options_in("/run/ckpt"));
  EXPECT_TRUE(test::all_done(loaded.ends)) << test::describe(loaded.ends);
  EXPECT_EQ(loaded.step, -1);
  EXPECT_TRUE(loaded.exact);
}

TEST(Checkpointer, RetentionKeepsTheNewestWholeOnesAndTheLoadedOne) {
  MemoryFiles files;
  Options options = options_in("/run/ckpt");
  ASSERT_TRUE(test::all_done(save_steps(files, 2, options, {1, 2, 3, 4, 5})));
  EXPECT_EQ(committed_steps(files, "/run/ckpt"), (std::vector<std::int64_t>{5, 4}));
  // One that is not whole does not count as kept, and what was loaded from stays.
  files.remove("/run/ckpt/step-00000005/rank-0001.h5");
  const auto ends = run_ranks(2, [&](int rank, comm::Control& control) {
    SyntheticRank state(rank, 2);
    auto checkpointer = state.make_checkpointer(files, control, options);
    EXPECT_EQ(checkpointer->load_newest(test::model_text())->step, 4);
    for (const std::int64_t step : {6, 7, 8}) state.save(*checkpointer, step);
  });
  ASSERT_TRUE(test::all_done(ends)) << test::describe(ends);
  EXPECT_EQ(committed_steps(files, "/run/ckpt"), (std::vector<std::int64_t>{8, 7, 4}));
  EXPECT_TRUE(files.exists("/run/ckpt/.bad-step-00000005"));
  EXPECT_EQ(read_file(files, "/run/ckpt/LATEST", 100), "step-00000008\n");
}

TEST(Checkpointer, SavingACommittedStepAgainLeavesIt) {
  MemoryFiles files;
  ASSERT_TRUE(test::all_done(save_steps(files, 2, options_in("/run/ckpt"), {3, 3})));
  EXPECT_EQ(test::load_newest(files, 2, options_in("/run/ckpt")).step, 3);
  // A damaged one of that step is replaced.
  files.remove("/run/ckpt/step-00000003/rank-0000.h5");
  ASSERT_TRUE(test::all_done(save_steps(files, 2, options_in("/run/ckpt"), {3})));
  const LoadResult loaded = test::load_newest(files, 1, options_in("/run/ckpt"));
  EXPECT_EQ(loaded.step, 3);
  EXPECT_TRUE(loaded.exact);
}

TEST(Checkpointer, ListsAndVerifies) {
  MemoryFiles files;
  ASSERT_TRUE(test::all_done(save_steps(files, 3, options_in("/run/ckpt"), {10, 20})));
  files.open("/run/ckpt/step-00000010/rank-0002.h5", OpenMode::kUpdate)->truncate(100);
  const auto list = list_checkpoints(files, "/run/ckpt");
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list[0].step, 20);
  EXPECT_EQ(list[0].tokens, 20'000);
  EXPECT_TRUE(list[0].complete);
  EXPECT_EQ(list[0].size_bytes, verify_checkpoint(files, "/run/ckpt/step-00000020/").total_bytes());
  EXPECT_EQ(list[1].step, 10);
  EXPECT_FALSE(list[1].complete);
  EXPECT_NE(list[1].problem.find("rank-0002.h5: 100 bytes"), std::string::npos) << list[1].problem;
  EXPECT_THROW(verify_checkpoint(files, "/run/ckpt/step-00000010"), CorruptError);
}

TEST(Checkpointer, ReadsAPartForOthers) {
  MemoryFiles files;
  ASSERT_TRUE(test::all_done(save_steps(files, 3, options_in("/run/ckpt"), {10, 20})));
  files.remove("/run/ckpt/step-00000020/rank-0001.h5");
  const auto found = find_newest(files, "/run/ckpt");
  ASSERT_TRUE(found);
  EXPECT_EQ(found->manifest.meta.step, 10);
  SyntheticRank state(0, 1, {test::synthetic_tensors()[0], test::synthetic_tensors()[3]});
  const Tensor staging = Tensor::reserve(state.host(), DType::kU8, {1000});
  state.host().allocate(state.device());
  read_tensors(files, *found, state.table(), test::model_text(), state.copy_out(), staging);
  EXPECT_TRUE(state.holds(10));
  EXPECT_TRUE(files.exists("/run/ckpt/step-00000020"));  // a reader changes nothing
  EXPECT_EQ(find_newest(files, "/run/none"), std::nullopt);
}

TEST(Checkpointer, RefusesAnotherModelAndSaysHow) {
  MemoryFiles files;
  ASSERT_TRUE(test::all_done(save_steps(files, 2, options_in("/run/ckpt"), {10})));
  const auto load_with = [&](std::vector<test::SyntheticTensor> tensors, const std::string& model) {
    return run_ranks(2, [&](int rank, comm::Control& control) {
      SyntheticRank state(rank, 2, tensors);
      auto checkpointer = state.make_checkpointer(files, control, options_in("/run/ckpt"));
      state.advance_to(1);
      state.compute().synchronize();
      try {
        checkpointer->load_newest(model);
      } catch (const IncompatibleCheckpointError&) {
        EXPECT_TRUE(state.holds(1));  // nothing was written
        throw;
      }
    });
  };
  const auto expect_refusal = [&](const std::vector<RankEnd>& ends, const std::string& text) {
    for (const RankEnd& end : ends) {
      EXPECT_EQ(end.code, ExitCode::kIncompatibleCheckpoint) << end.message;
      EXPECT_NE(end.message.find(text), std::string::npos) << end.message;
    }
  };
  auto tensors = test::synthetic_tensors();
  tensors[0].shape = {58, 13};
  expect_refusal(load_with(tensors, test::model_text()), "param/wte is f32[57, 13], ours f32[58, 13]");
  tensors = test::synthetic_tensors();
  tensors[0].dtype = DType::kBF16;
  expect_refusal(load_with(tensors, test::model_text()), "param/wte is f32[57, 13], ours bf16[57, 13]");
  tensors = test::synthetic_tensors();
  tensors.pop_back();
  expect_refusal(load_with(tensors, test::model_text()), "zero/flat is not ours");
  tensors = test::synthetic_tensors();
  tensors.push_back({"param/new", DType::kF32, {3}});
  expect_refusal(load_with(tensors, test::model_text()), "param/new is missing");
  expect_refusal(load_with(test::synthetic_tensors(), R"({"layers":2,"width":13})"), "model.layers is 1, ours 2");
  // It stays: another model's checkpoint is not damaged.
  EXPECT_EQ(test::load_newest(files, 2, options_in("/run/ckpt")).step, 10);
}

TEST(Checkpointer, ASecondWriterIsRefusedByName) {
  const ScratchFolder scratch(ScratchFolder::Where::kMemory);
  PosixFiles files;
  const auto ends = run_ranks(1, [&](int, comm::Control& control) {
    SyntheticRank first(0, 1);
    auto holder = first.make_checkpointer(files, control, options_in(scratch.path()));
    SyntheticRank second(0, 1);
    try {
      second.make_checkpointer(files, control, options_in(scratch.path()));
      ADD_FAILURE() << "two writers on one folder";
    } catch (const ConfigError& error) {
      EXPECT_NE(std::string(error.what()).find("process " + std::to_string(::getpid()) + " on host"), std::string::npos)
          << error.what();
    }
  });
  ASSERT_TRUE(test::all_done(ends)) << test::describe(ends);
  // Released in order: nothing to say about.
  LogLines quiet;
  EXPECT_TRUE(test::all_done(save_steps(files, 1, options_in(scratch.path(), &quiet), {1})));
  EXPECT_EQ(quiet.all(), "");
}

TEST(Checkpointer, TheLockOfADeadProcessIsTakenOverAndThatOfAnotherHost) {
  const ScratchFolder scratch(ScratchFolder::Where::kMemory);
  PosixFiles files;
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const FolderLock lock(files, scratch.path() / "lock", [](std::string_view) {});
    files.make_directory(scratch.path() / "step-00000009.tmp-1");
    files.make_directory(scratch.path() / ".trash-step-00000001");
    ::_exit(0);  // without releasing it
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  LogLines lines;
  EXPECT_TRUE(test::all_done(save_steps(files, 1, options_in(scratch.path(), &lines), {1})));
  EXPECT_NE(lines.all().find("process " + std::to_string(child)), std::string::npos) << lines.all();
  EXPECT_EQ(files.list(scratch.path()), (std::vector<std::string>{"LATEST", "lock", "step-00000001"}));

  // Left by another host, and the kernel's lock is free: nobody has it, for only this host uses this file system.
  for (const char* left : {"another-host.example 77\n", "another-host.example 77 an-id 0000000003\n"}) {
    write_file_durably(files, scratch.path() / "lock", left);
    LogLines taken;
    EXPECT_TRUE(test::all_done(save_steps(files, 2, options_in(scratch.path(), &taken), {2})));
    EXPECT_NE(taken.all().find("takes over the lock of process 77 on host another-host.example"), std::string::npos)
        << taken.all();
  }
}

// Its folder was given to another run while this one stood still: it must not write there, and ends on every rank.
TEST(Checkpointer, ARunThatHasLostItsLockSavesNoMore) {
  for (const char* const place : {"before", "ckpt.fsync.after"}) {
    MemoryFiles files;
    class LoseLockAt final : public Failpoints {
     public:
      LoseLockAt(Files& files, std::string place) : files_(files), place_(std::move(place)) {}
      void hit(std::string_view name) override {
        if (name == place_) lose();
      }
      void lose() { replace_file(files_, "/run/ckpt/lock", "elsewhere 5 an-id 0000000001\n"); }

     private:
      Files& files_;
      std::string place_;
    } failpoints(files, place);
    const auto ends = run_ranks(2, [&](int rank, comm::Control& control) {
      SyntheticRank state(rank, 2);
      Options options = options_in("/run/ckpt");
      if (rank == 0) options.failpoints = &failpoints;
      auto checkpointer = state.make_checkpointer(files, control, options);
      if (rank == 0 && place == std::string("before")) failpoints.lose();
      state.save(*checkpointer, 10);
    });
    for (const RankEnd& end : ends) {
      EXPECT_EQ(end.code, ExitCode::kConfig) << end.message;
      EXPECT_NE(end.message.find("lost its lock to process 5 on host elsewhere"), std::string::npos) << end.message;
    }
    EXPECT_TRUE(committed_steps(files, "/run/ckpt").empty());
    EXPECT_EQ(read_file(files, "/run/ckpt/lock", 100), "elsewhere 5 an-id 0000000001\n") << "it is the other's";
  }
}

TEST(Checkpointer, AnUnusableFolderIsAConfigurationError) {
  const ScratchFolder scratch(ScratchFolder::Where::kMemory);
  PosixFiles files;
  write_file_durably(files, scratch.path() / "file", "in the way");
  for (const RankEnd& end : save_steps(files, 2, options_in(scratch.path() / "file" / "ckpt"), {1})) {
    EXPECT_EQ(end.code, ExitCode::kConfig);
    EXPECT_NE(end.message.find("cannot be used"), std::string::npos) << end.message;
  }
}

// Files in which nobody may make a folder.
class NoNewFolders final : public ForwardingFiles {
 public:
  using ForwardingFiles::ForwardingFiles;
  void make_directory(const fs::path& path) override { throw io_error("make the folder", path, EACCES); }
};

TEST(Checkpointer, MissingRightsShowAtTheStartAndNotAtTheFirstSave) {
  MemoryFiles files;
  ASSERT_TRUE(test::all_done(save_steps(files, 1, options_in("/run/ckpt"), {1})));
  NoNewFolders denied(files);
  for (const RankEnd& end : save_steps(denied, 2, options_in("/run/ckpt"), {})) {
    EXPECT_EQ(end.code, ExitCode::kConfig) << end.message;
    EXPECT_NE(end.message.find("cannot be used"), std::string::npos) << end.message;
  }
  EXPECT_EQ(files.list("/run/ckpt"), (std::vector<std::string>{"LATEST", "lock", "step-00000001"}));
}

// LATEST is for people: what is wrong with it must not fill the disk with old checkpoints.
TEST(Checkpointer, RetentionGoesOnWithoutLatest) {
  MemoryFiles files;
  files.make_directories("/run/ckpt/LATEST");
  LogLines lines;
  Options options = options_in("/run/ckpt", &lines);
  options.keep = 1;
  EXPECT_TRUE(test::all_done(save_steps(files, 2, options, {1, 2, 3})));
  EXPECT_EQ(committed_steps(files, "/run/ckpt"), std::vector<std::int64_t>{3});
  EXPECT_EQ(lines.lines.size(), 3u) << lines.all();
}

TEST(Checkpointer, OnlyWhatItMadeIsLeftOver) {
  MemoryFiles files;
  const std::vector<std::string> kept = {"notes.tmp-1", "step-00000001.tmp-copy", "step-00000001.tmp-", "step-1.tmp-1"};
  for (const std::string& name : kept) files.make_directories("/run/ckpt/" + name);
  for (const char* name : {"step-00000001.tmp-12", ".trash-step-00000001"}) {
    files.make_directories(fs::path("/run/ckpt") / name / "deep");
  }
  EXPECT_TRUE(test::all_done(save_steps(files, 1, options_in("/run/ckpt"), {})));
  for (const std::string& name : kept) EXPECT_TRUE(files.exists("/run/ckpt/" + name)) << name;
  EXPECT_EQ(files.list("/run/ckpt").size(), kept.size() + 1) << "and the lock";
}

// Whoever starts the job again must not be told that its configuration is wrong: with space, the same one works.
TEST(Checkpointer, ADiskThatIsFullOrFailsAtTheStartIsStorage) {
  for (const int error_number : {ENOSPC, EDQUOT, EIO, EROFS}) {
    MemoryFiles disk;
    test::FaultyFiles files(disk);
    files.fill_disk_at(1, error_number);
    for (const RankEnd& end : save_steps(files, 2, options_in("/run/ckpt"), {1})) {
      EXPECT_EQ(end.code, ExitCode::kStorage) << end.message;
      EXPECT_NE(end.message.find("/run"), std::string::npos) << end.message;
    }
  }
}

TEST(Checkpointer, TooLittleSpaceIsSaidBeforeAnythingIsWritten) {
  MemoryFiles files;
  ASSERT_TRUE(test::all_done(save_steps(files, 2, options_in("/run/ckpt"), {1})));
  files.set_free_bytes(1000);
  for (const RankEnd& end : save_steps(files, 2, options_in("/run/ckpt"), {2})) {
    EXPECT_EQ(end.code, ExitCode::kStorage);
    EXPECT_NE(end.message.find("are needed"), std::string::npos) << end.message;
  }
  EXPECT_EQ(committed_steps(files, "/run/ckpt"), (std::vector<std::int64_t>{1}));
}

// ---- Order of the snapshot.

constexpr const char* kSnapshotWait = "snapshot waits for the updated weights";
// Without the wait there is a race, which ThreadSanitizer would report; tests/integration/tsan_proof_test.cc has it do
// so.
#ifdef STRAKE_TSAN
constexpr std::array kDropped{false};
#else
constexpr std::array kDropped{false, true};
#endif

TEST(Snapshot, ItsWaitIsLoadBearing) {
  for (const bool dropped : kDropped) {
    MemoryFiles files;
    const auto cpu = make_cpu_device();
    CheckedDevice checked(*cpu, CheckedDevice::Policy::kCollect);
    test::FaultyDevice faulty(checked);
    if (dropped) faulty.faults().wait_to_drop = kSnapshotWait;
    const auto ends = run_ranks(1, [&](int rank, comm::Control& control) {
      SyntheticRank state(rank, 1, test::synthetic_tensors(), &faulty);
      auto checkpointer = state.make_checkpointer(files, control, options_in("/run/ckpt"));
      for (const std::int64_t step : {1, 2, 3, 4}) state.save(*checkpointer, step);
    });
    ASSERT_TRUE(test::all_done(ends)) << test::describe(ends);
    EXPECT_EQ(faulty.waits_passed().at(kSnapshotWait), 4);
    EXPECT_EQ(checked.checker().reports().empty(), !dropped);
  }
}

// Holds the update at a gate until the snapshot is enqueued behind it.
class OpenGateAtSnapshot final : public Failpoints {
 public:
  OpenGateAtSnapshot(test::Gate& gate, SyntheticRank& state, bool let_copies_run_first)
      : gate_(gate), state_(state), let_copies_run_first_(let_copies_run_first) {}
  void hit(std::string_view name) override {
    if (name != "ckpt.snap.mid") return;
    if (let_copies_run_first_) state_.copy_out().synchronize();
    EXPECT_TRUE(test::wait_until([&] { return gate_.reached(); }));
    gate_.open();
  }

 private:
  test::Gate& gate_;
  SyntheticRank& state_;
  bool let_copies_run_first_;
};

TEST(Snapshot, HoldsTheStateBehindTheUpdateHoweverLateThatIs) {
  for (const bool dropped : kDropped) {
    MemoryFiles files;
    const auto cpu = make_cpu_device();
    test::FaultyDevice faulty(*cpu);
    if (dropped) faulty.faults().wait_to_drop = kSnapshotWait;
    const auto ends = run_ranks(1, [&](int rank, comm::Control& control) {
      test::Gate gate;
      SyntheticRank state(rank, 1, test::synthetic_tensors(), &faulty);
      OpenGateAtSnapshot failpoints(gate, state, dropped);
      Options options = options_in("/run/ckpt");
      options.failpoints = &failpoints;
      auto checkpointer = state.make_checkpointer(files, control, options);
      state.advance_to(1);
      state.compute().synchronize();
      state.compute().launch({.label = {"late", Phase::kOther}, .kind = "gate", .reads = {}, .writes = {}},
                             gate.body());
      state.save(*checkpointer, 2);
    });
    ASSERT_TRUE(test::all_done(ends)) << test::describe(ends);
    // Without the wait the copies run before the update and the file says step 2 over the state of step 1.
    const LoadResult loaded = test::load_newest(files, 1, options_in("/run/ckpt"));
    EXPECT_EQ(loaded.step, 2);
    EXPECT_EQ(loaded.exact, !dropped);
  }
}

}  // namespace
}  // namespace strake::checkpoint
