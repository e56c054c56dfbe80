// Options::paranoid: a checkpoint that would not hold what the device held is refused before a byte of it is written.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "checkpoint/checkpointer.h"
#include "runtime/device/host_memory.h"
#include "tests/checkpoint/synthetic_run.h"
#include "tests/support/faulty_device.h"
#include "tests/support/gate.h"
#include "tests/support/memory_files.h"

namespace strake::checkpoint {
namespace {

using test::Gate;
using test::LoadResult;
using test::MemoryFiles;
using test::options_in;
using test::run_ranks;
using test::SyntheticRank;

constexpr const char* kFenceOfUpdate = "update waits for the snapshot";
constexpr const char* kWaitForUpdate = "snapshot waits for the updated weights";

class Paranoid : public testing::TestWithParam<StrategyKind> {
 protected:
  Options options(bool paranoid) const {
    Options options = options_in("/run/ckpt");
    options.strategy = GetParam();
    options.paranoid = paranoid;
    return options;
  }
  // Saves step 10 with copies that are held until the next update is done, unless a fence holds that too, and step 20
  // in health. What the first save threw.
  std::string save_late(MemoryFiles& files, bool paranoid, bool fenced) {
    std::string refusal;
    const auto cpu = make_cpu_device();
    test::FaultyDevice faulty(*cpu);
    if (!fenced) faulty.faults().wait_to_drop = kFenceOfUpdate;
    const auto ends = run_ranks(1, [&](int rank, comm::Control& control) {
      Gate copies;
      SyntheticRank state(rank, 1, test::synthetic_tensors(), &faulty);
      auto checkpointer = state.make_checkpointer(files, control, options(paranoid));
      Event updated = state.device().make_event("next update");
      state.copy_out().launch({.label = {"late", Phase::kOther}, .kind = "gate", .reads = {}, .writes = {}},
                              copies.body());
      state.begin(*checkpointer, 10);
      state.advance_behind(*checkpointer, 11);
      state.compute().record(updated);
      EXPECT_TRUE(test::wait_until([&] { return copies.reached(); }));
      if (fenced) {
        EXPECT_FALSE(state.device().complete(updated));
      } else {
        EXPECT_TRUE(test::wait_until([&] { return state.device().complete(updated); }));
      }
      copies.open();
      try {
        checkpointer->finish();
      } catch (const Error& error) {
        EXPECT_EQ(error.exit_code(), ExitCode::kFailure);
        refusal = error.what();
      }
      faulty.faults().wait_to_drop.clear();
      state.save(*checkpointer, 20);
    });
    EXPECT_TRUE(test::all_done(ends)) << test::describe(ends);
    return refusal;
  }
};
INSTANTIATE_TEST_SUITE_P(Strategies, Paranoid,
                         testing::Values(StrategyKind::kSync, StrategyKind::kPinned, StrategyKind::kLazy,
                                         StrategyKind::kDevice),
                         [](const auto& kind) { return std::string(name_of(kind.param)); });
// Where training goes on meanwhile, and a fence holds it.
class ParanoidBeside : public Paranoid {};
INSTANTIATE_TEST_SUITE_P(Strategies, ParanoidBeside,
                         testing::Values(StrategyKind::kPinned, StrategyKind::kLazy, StrategyKind::kDevice),
                         [](const auto& kind) { return std::string(name_of(kind.param)); });

TEST_P(ParanoidBeside, CopiesThatAreLateBehindTheirFenceAgree) {
  MemoryFiles files;
  EXPECT_EQ(save_late(files, true, true), "");
  EXPECT_EQ(committed_steps(files, "/run/ckpt"), (std::vector<std::int64_t>{20, 10}));
  files.rename("/run/ckpt/step-00000020", "/run/ckpt/aside");
  const LoadResult loaded = test::load_newest(files, 2, options_in("/run/ckpt"));
  EXPECT_EQ(loaded.step, 10);
  EXPECT_TRUE(loaded.exact);
}

// In what follows there is a race, which ThreadSanitizer would report.
#ifndef STRAKE_TSAN
TEST_P(ParanoidBeside, AMissingFenceIsFoundBeforeAByteIsWritten) {
  for (const bool paranoid : {false, true}) {
    SCOPED_TRACE(paranoid ? "paranoid" : "trusting");
    MemoryFiles files;
    const std::string refusal = save_late(files, paranoid, false);
    if (paranoid) {
      EXPECT_NE(refusal.find("checkpoint of step 10"), std::string::npos) << refusal;
      EXPECT_NE(refusal.find("a wait is missing"), std::string::npos) << refusal;
      EXPECT_EQ(committed_steps(files, "/run/ckpt"), std::vector<std::int64_t>{20}) << "and the next one is sound";
    } else {
      EXPECT_EQ(refusal, "");
      files.rename("/run/ckpt/step-00000020", "/run/ckpt/aside");
      const LoadResult loaded = test::load_newest(files, 1, options_in("/run/ckpt"));
      EXPECT_EQ(loaded.step, 10);
      EXPECT_FALSE(loaded.exact) << "the fence is not needed";
    }
    EXPECT_FALSE(files.exists("/run/ckpt/step-00000010.tmp-1"));
  }
}

// Lets copies that do not wait for the update go before it.
class OpenBehindTheCopies final : public Failpoints {
 public:
  OpenBehindTheCopies(Gate& update, SyntheticRank& state) : update_(update), state_(state) {}
  void hit(std::string_view name) override {
    if (name != "ckpt.snap.mid") return;
    state_.copy_out().synchronize();
    EXPECT_TRUE(test::wait_until([&] { return update_.reached(); }));
    update_.open();
  }

 private:
  Gate& update_;
  SyntheticRank& state_;
};

TEST_P(Paranoid, ACopyThatIsTooEarlyIsFound) {
  MemoryFiles files;
  const auto cpu = make_cpu_device();
  test::FaultyDevice faulty(*cpu);
  faulty.faults().wait_to_drop = kWaitForUpdate;
  const auto ends = run_ranks(1, [&](int rank, comm::Control& control) {
    Gate update;
    SyntheticRank state(rank, 1, test::synthetic_tensors(), &faulty);
    OpenBehindTheCopies failpoints(update, state);
    Options options = this->options(true);
    options.failpoints = &failpoints;
    auto checkpointer = state.make_checkpointer(files, control, options);
    state.advance_to(1);
    state.compute().synchronize();
    state.compute().launch({.label = {"late", Phase::kOther}, .kind = "gate", .reads = {}, .writes = {}},
                           update.body());
    state.save(*checkpointer, 2);
  });
  EXPECT_EQ(ends.front().code, ExitCode::kFailure) << test::describe(ends);
  EXPECT_NE(ends.front().message.find("checkpoint of step 2"), std::string::npos) << test::describe(ends);
  EXPECT_TRUE(committed_steps(files, "/run/ckpt").empty());
}
#endif

// Changes one bit of the copies of one rank before they are written.
class FlipABit final : public Failpoints {
 public:
  FlipABit(SyntheticRank& state, std::size_t bit) : state_(state), bit_(bit) {}
  void hit(std::string_view name) override {
    if (name != "ckpt.snap.end") return;
    const Tensor all(state_.host(), 0, DType::kU8, {static_cast<std::int64_t>(bit_ / 8 + 1)});
    host_bytes(all)[bit_ / 8] ^= std::byte{1} << bit_ % 8;
  }

 private:
  SyntheticRank& state_;
  const std::size_t bit_;
};

TEST_P(Paranoid, OneBitOfTheCopiesOfOneRankIsFoundByAll) {
  for (const std::size_t bit : {0u, 77u, 4'001u, 20'000u}) {
    for (const bool paranoid : {false, true}) {
      MemoryFiles files;
      const auto ends = run_ranks(3, [&](int rank, comm::Control& control) {
        SyntheticRank state(rank, 3);
        FlipABit failpoints(state, bit);
        Options options = this->options(paranoid);
        if (rank == 1) options.failpoints = &failpoints;
        auto checkpointer = state.make_checkpointer(files, control, options);
        state.save(*checkpointer, 10);
      });
      for (const test::RankEnd& end : ends) {
        EXPECT_EQ(end.code, paranoid ? ExitCode::kFailure : ExitCode::kDone) << "bit " << bit << test::describe(ends);
      }
      EXPECT_EQ(committed_steps(files, "/run/ckpt").size(), paranoid ? 0u : 1u);
    }
  }
}

}  // namespace
}  // namespace strake::checkpoint
