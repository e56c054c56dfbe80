// Saves that are written beside training: what they hold, what training waits for and what not, and how errors are
// told.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <filesystem>
#include <mutex>
#include <set>

#include "checkpoint/checkpointer.h"
#include "runtime/device/order_checker.h"
#include "tests/checkpoint/counted_allocation.h"
#include "tests/checkpoint/synthetic_run.h"
#include "tests/support/faulty_device.h"
#include "tests/support/gate.h"
#include "tests/support/memory_files.h"
#include "tests/support/scratch_folder.h"

namespace strake::checkpoint {
namespace {

using test::Gate;
using test::LoadResult;
using test::MemoryFiles;
using test::options_in;
using test::RankEnd;
using test::run_ranks;
using test::SyntheticRank;

constexpr StrategyKind kBeside[] = {StrategyKind::kPinned, StrategyKind::kLazy, StrategyKind::kDevice};

class Beside : public testing::TestWithParam<StrategyKind> {
 protected:
  Options options(Failpoints* failpoints = nullptr) const {
    Options options = options_in("/run/ckpt");
    options.strategy = GetParam();
    options.failpoints = failpoints;
    return options;
  }
};
INSTANTIATE_TEST_SUITE_P(Strategies, Beside, testing::ValuesIn(kBeside),
                         [](const auto& kind) { return std::string(name_of(kind.param)); });

// Holds the thread that passes a place.
class HoldAt final : public Failpoints {
 public:
  explicit HoldAt(std::string place) : place_(std::move(place)) {}
  void hit(std::string_view name) override {
    if (name == place_) gate.pass();
  }
  Gate gate;

 private:
  const std::string place_;
};

// Training is many steps further when the first byte is written, and when the vote is held.
TEST_P(Beside, ASaveHoldsItsStepWhateverIsTrainedMeanwhile) {
  for (const char* place : {"ckpt.preflight", "ckpt.snap.end", "ckpt.write.0", "ckpt.vote", "ckpt.rename"}) {
    for (const int ranks : {1, 3}) {
      SCOPED_TRACE(fmt::format("{} ranks, held at {}", ranks, place));
      MemoryFiles files;
      const auto ends = run_ranks(ranks, [&](int rank, comm::Control& control) {
        SyntheticRank state(rank, ranks);
        HoldAt writer(place);
        auto checkpointer = state.make_checkpointer(files, control, options(rank == 0 ? &writer : nullptr));
        state.begin(*checkpointer, 10);
        for (std::int64_t step = 11; step <= 15; ++step) state.advance_behind(*checkpointer, step);
        EXPECT_TRUE(state.holds(15)) << "training waits for the writer";
        EXPECT_TRUE(checkpointer->in_flight());
        if (rank == 0) {
          EXPECT_TRUE(test::wait_until([&] { return writer.gate.reached(); }));
          EXPECT_FALSE(checkpointer->ended());
          writer.gate.open();
        }
        const SaveReport report = checkpointer->finish();
        EXPECT_FALSE(checkpointer->in_flight());
        EXPECT_TRUE(checkpointer->ended());
        EXPECT_GT(report.bytes, 0u);
        EXPECT_LE(report.returned_s, report.durable_s);
        EXPECT_LE(report.snapshot_s, report.durable_s);
        EXPECT_GT(report.snapshot_s, 0);
      });
      ASSERT_TRUE(test::all_done(ends)) << test::describe(ends);
      const LoadResult loaded = test::load_newest(files, 2, options_in("/run/ckpt"));
      EXPECT_EQ(loaded.step, 10);
      EXPECT_TRUE(loaded.exact);
    }
  }
}

// One rank's thread is held before a vote that the others' wait in: what training threads tell each other goes on.
TEST_P(Beside, VotesNeverMeetWhatTheTrainingThreadsTellEachOther) {
  MemoryFiles files;
  const auto ends = run_ranks(3, [&](int rank, comm::Control& control) {
    SyntheticRank state(rank, 3);
    HoldAt writer("ckpt.report");
    if (rank != 0) writer.gate.open();
    auto checkpointer = state.make_checkpointer(files, control, options(&writer));
    state.begin(*checkpointer, 10);
    EXPECT_TRUE(test::wait_until([&] { return writer.gate.reached(); }));
    for (int round = 0; round < 20; ++round) {
      const double mine = rank;
      control.post({&mine, 1});
      EXPECT_EQ(control.all_gather(fmt::format("{} of {}", round, rank)),
                (std::vector<std::string>{fmt::format("{} of 0", round), fmt::format("{} of 1", round),
                                          fmt::format("{} of 2", round)}));
      EXPECT_EQ(control.finish(), (std::vector<double>{0, 1, 2}));
    }
    EXPECT_FALSE(checkpointer->ended());
    control.barrier();
    writer.gate.open();
    checkpointer->finish();
  });
  ASSERT_TRUE(test::all_done(ends)) << test::describe(ends);
  EXPECT_EQ(committed_steps(files, "/run/ckpt"), std::vector<std::int64_t>{10});
}

constexpr const char* kFence = "update waits for the snapshot";
// Without it there is a race, which ThreadSanitizer would report; tests/integration/tsan_proof_test.cc has it do so.
#ifdef STRAKE_TSAN
constexpr std::array kWithoutWait{false};
#else
constexpr std::array kWithoutWait{false, true};
#endif

TEST_P(Beside, TheFenceOfTheUpdateIsLoadBearing) {
  for (const bool dropped : kWithoutWait) {
    MemoryFiles files;
    const auto cpu = make_cpu_device();
    CheckedDevice checked(*cpu, CheckedDevice::Policy::kCollect);
    test::FaultyDevice faulty(checked);
    if (dropped) faulty.faults().wait_to_drop = kFence;
    const auto ends = run_ranks(1, [&](int rank, comm::Control& control) {
      SyntheticRank state(rank, 1, test::synthetic_tensors(), &faulty);
      auto checkpointer = state.make_checkpointer(files, control, options());
      for (const std::int64_t step : {1, 2, 3, 4}) {
        state.begin(*checkpointer, step);
        state.advance_behind(*checkpointer, step + 100);
        state.advance_behind(*checkpointer, step + 200);
        checkpointer->finish();
      }
    });
    ASSERT_TRUE(test::all_done(ends)) << test::describe(ends);
    EXPECT_EQ(faulty.waits_passed().at(kFence), 4) << "once a save";
    EXPECT_EQ(checked.checker().reports().empty(), !dropped);
  }
}

// What the checker says is so: held copies hold the update, and nothing before it.
TEST_P(Beside, CopiesThatAreLateHoldTheNextUpdate) {
  for (const bool dropped : kWithoutWait) {
    SCOPED_TRACE(dropped ? "without the fence" : "with it");
    MemoryFiles files;
    const auto cpu = make_cpu_device();
    test::FaultyDevice faulty(*cpu);
    if (dropped) faulty.faults().wait_to_drop = kFence;
    const auto ends = run_ranks(1, [&](int rank, comm::Control& control) {
      Gate copies;
      SyntheticRank state(rank, 1, test::synthetic_tensors(), &faulty);
      auto checkpointer = state.make_checkpointer(files, control, options());
      Event forward = state.device().make_event("forward"), updated = state.device().make_event("next update");
      state.copy_out().launch({.label = {"late", Phase::kOther}, .kind = "gate", .reads = {}, .writes = {}},
                              copies.body());
      state.begin(*checkpointer, 10);
      state.compute().record(forward);
      state.advance_behind(*checkpointer, 11);
      state.compute().record(updated);
      EXPECT_TRUE(test::wait_until([&] { return copies.reached(); }));
      if (GetParam() != StrategyKind::kPinned || dropped) {
        EXPECT_TRUE(test::wait_until([&] { return state.device().complete(forward); }));
      }
      if (dropped) {
        EXPECT_TRUE(test::wait_until([&] { return state.device().complete(updated); }));
      } else {
        EXPECT_FALSE(state.device().complete(updated));
        EXPECT_EQ(state.device().complete(forward), GetParam() != StrategyKind::kPinned);
      }
      copies.open();
      checkpointer->finish();
      EXPECT_TRUE(state.holds(11));
    });
    ASSERT_TRUE(test::all_done(ends)) << test::describe(ends);
    const LoadResult loaded = test::load_newest(files, 1, options_in("/run/ckpt"));
    EXPECT_EQ(loaded.step, 10);
    EXPECT_EQ(loaded.exact, !dropped);
  }
}

// A device on which another thread's waiting for the host does nothing.
class HurriedDevice final : public ForwardingDevice {
 public:
  HurriedDevice(Device& inner, bool hurried) : ForwardingDevice(inner), hurried_(hurried) {}
  void host_wait(EventTicket ticket) override {
    if (!hurried_) ForwardingDevice::host_wait(ticket);
  }

 private:
  const bool hurried_;
};

// The thread that writes waits for the copies, and that is needed.
TEST_P(Beside, NothingIsWrittenBeforeItHasBeenCopied) {
  for (const bool hurried : kWithoutWait) {
    SCOPED_TRACE(hurried ? "hurried" : "as it is");
    MemoryFiles files;
    const auto cpu = make_cpu_device();
    HurriedDevice device(*cpu, hurried);
    const auto ends = run_ranks(1, [&](int rank, comm::Control& control) {
      Gate copies;
      SyntheticRank state(rank, 1, test::synthetic_tensors(), &device);
      HoldAt writer("ckpt.snap.end");
      writer.gate.open();
      auto checkpointer = state.make_checkpointer(files, control, options(&writer));
      state.copy_out().launch({.label = {"late", Phase::kOther}, .kind = "gate", .reads = {}, .writes = {}},
                              copies.body());
      state.begin(*checkpointer, 10);
      if (hurried) {
        EXPECT_TRUE(test::wait_until([&] { return checkpointer->ended(); }));
      } else {
        EXPECT_TRUE(test::wait_until([&] { return files.exists("/run/ckpt/step-00000010.tmp-1"); }));
        EXPECT_FALSE(writer.gate.reached());
      }
      copies.open();
      checkpointer->finish();
    });
    ASSERT_TRUE(test::all_done(ends)) << test::describe(ends);
    const LoadResult loaded = test::load_newest(files, 1, options_in("/run/ckpt"));
    EXPECT_EQ(loaded.step, 10);
    EXPECT_EQ(loaded.exact, !hurried);
  }
}

// What a state is worth is proven by the thread that writes, before anything is written; all ranks hear the same.
TEST_P(Beside, AStateThatIsNotWorthItIsNotWritten) {
  MemoryFiles files;
  const auto ends = run_ranks(2, [&](int rank, comm::Control& control) {
    SyntheticRank state(rank, 2);
    auto checkpointer = state.make_checkpointer(files, control, options());
    state.save(*checkpointer, 10);
    const auto training = std::this_thread::get_id();
    state.begin(*checkpointer, 20, [&](comm::Control& votes, Meta&) {
      EXPECT_NE(std::this_thread::get_id(), training);
      EXPECT_NE(&votes, &control);
      if (votes.all_gather("worth").size() == 2) throw NonFiniteError("not worth it");
    });
    EXPECT_TRUE(test::wait_until([&] { return checkpointer->ended(); }));
    checkpointer->check();  // nothing that the others do not know
    try {
      checkpointer->finish();
      ADD_FAILURE() << "it was written";
    } catch (const NonFiniteError& error) {
      EXPECT_STREQ(error.what(), "not worth it");
    }
    EXPECT_FALSE(checkpointer->in_flight());
    control.barrier();
    EXPECT_EQ(committed_steps(files, "/run/ckpt"), std::vector<std::int64_t>{10});
    control.barrier();
    state.save(*checkpointer, 30);
  });
  ASSERT_TRUE(test::all_done(ends)) << test::describe(ends);
  EXPECT_EQ(test::load_newest(files, 2, options_in("/run/ckpt")).step, 30);
}

// A rank that ends while its thread writes ends with a checkpoint.
TEST_P(Beside, TheEndWaitsForASaveInFlight) {
  MemoryFiles files;
  const auto ends = run_ranks(2, [&](int rank, comm::Control& control) {
    SyntheticRank state(rank, 2);
    auto checkpointer = state.make_checkpointer(files, control, options());
    state.begin(*checkpointer, 10);
  });
  ASSERT_TRUE(test::all_done(ends)) << test::describe(ends);
  const LoadResult loaded = test::load_newest(files, 2, options_in("/run/ckpt"));
  EXPECT_EQ(loaded.step, 10);
  EXPECT_TRUE(loaded.exact);
}

// Throws what is no Error where a rank passes a place: only that rank knows.
class BreakAt final : public Failpoints {
 public:
  explicit BreakAt(std::string place) : place_(std::move(place)) {}
  void hit(std::string_view name) override {
    if (name == place_) throw std::logic_error("a mistake");
  }

 private:
  const std::string place_;
};

// One rank's thread breaks while the other's votes: the one says so at its next look, and the other is told.
TEST_P(Beside, ARankThatIsLostWhileOthersVoteEndsThem) {
  for (const char* place : {"ckpt.write.0", "ckpt.report", "ckpt.vote"}) {
    SCOPED_TRACE(place);
    MemoryFiles files;
    std::array<std::string, 2> said;
    const auto ends = run_ranks(2, [&](int rank, comm::Control& control) {
      SyntheticRank state(rank, 2);
      BreakAt breaks(place);
      auto checkpointer = state.make_checkpointer(files, control, options(rank == 1 ? &breaks : nullptr));
      state.begin(*checkpointer, 10);
      try {
        for (;;) {  // as a run that goes on
          checkpointer->check();
          std::this_thread::yield();
        }
      } catch (const std::exception& error) {
        said[static_cast<std::size_t>(rank)] = error.what();
        throw;
      }
    });
    EXPECT_FALSE(test::all_done(ends));
    EXPECT_EQ(said[1], "a mistake");
    EXPECT_NE(said[0].find("rank 1"), std::string::npos) << said[0];
    // Behind the vote rank 0 has published it, and what is durable stays.
    EXPECT_EQ(committed_steps(files, "/run/ckpt").empty(), std::string_view(place) != "ckpt.vote");
  }
}

std::size_t entries_of(const char* folder) {
  return static_cast<std::size_t>(
      std::distance(std::filesystem::directory_iterator(folder), std::filesystem::directory_iterator()));
}

// Saves leave nothing behind: no memory of heap or device, no descriptor, no thread, behind the fifth of fifty.
TEST_P(Beside, FiftySavesGrowNothing) {
  const test::ScratchFolder scratch(test::ScratchFolder::Where::kMemory);
  PosixFiles files;
  struct Kept {
    std::size_t heap_bytes, device_bytes, descriptors, threads;
  };
  std::vector<Kept> kept;
  kept.reserve(50);
  const auto ends = run_ranks(1, [&](int rank, comm::Control& control) {
    SyntheticRank state(rank, 1);
    Options options = this->options();
    options.directory = scratch.path() / "ckpt";
    auto checkpointer = state.make_checkpointer(files, control, options);
    for (std::int64_t step = 1001; step <= 1050; ++step) {
      state.begin(*checkpointer, step);
      state.advance_behind(*checkpointer, step + 1);
      checkpointer->finish();
      EXPECT_TRUE(state.holds(step + 1));
      kept.push_back({test::live_bytes(), state.device().allocated_bytes(), entries_of("/proc/self/fd"),
                      entries_of("/proc/self/task")});
    }
  });
  ASSERT_TRUE(test::all_done(ends)) << test::describe(ends);
  ASSERT_EQ(kept.size(), 50u);
  const Kept &fifth = kept[4], &last = kept.back();
  EXPECT_EQ(last.heap_bytes, fifth.heap_bytes);
  EXPECT_EQ(last.device_bytes, fifth.device_bytes);
  EXPECT_EQ(last.descriptors, fifth.descriptors);
  EXPECT_EQ(last.threads, fifth.threads);
}

}  // namespace
}  // namespace strake::checkpoint
