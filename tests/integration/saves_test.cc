// Checkpoints that are written while a run goes on: the same bytes by every strategy, a run that goes on from any of
// them, a disk that is too slow or fails, and stops in the middle of one.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "checkpoint/directory.h"
#include "checkpoint/manifest.h"
#include "launch/train/strategy_choice.h"
#include "runtime/io/forwarding_files.h"
#include "tests/integration/program_job.h"
#include "tests/integration/variants.h"
#include "tests/support/gate.h"

namespace strake::test {
namespace {

using launch::CheckpointStrategy;

constexpr int kSavingRanks = 2;
constexpr std::int64_t kSavedSteps = 12;
// Sanitizers, under which a run takes ten times as long, see each path once.
#ifdef STRAKE_SANITIZED
constexpr const char* kLateStreams[] = {"", "all"};
constexpr std::size_t kEveryNthSave = 5;
#else
constexpr const char* kLateStreams[] = {"", "copy-out", "compute", "comm", "all"};
constexpr std::size_t kEveryNthSave = 1;
#endif

struct Kept {
  CheckpointStrategy strategy;
  models::Shard shard;
  const char* name;
};
constexpr Kept kKept[] = {{CheckpointStrategy::kPinned, models::Shard::kNone, "pinned"},
                          {CheckpointStrategy::kLazy, models::Shard::kNone, "lazy"},
                          {CheckpointStrategy::kDevice, models::Shard::kNone, "device"},
                          {CheckpointStrategy::kPinned, models::Shard::kOptimizer, "pinned_sharded"},
                          {CheckpointStrategy::kLazy, models::Shard::kOptimizer, "lazy_sharded"},
                          {CheckpointStrategy::kDevice, models::Shard::kOptimizer, "device_sharded"}};

std::vector<std::int64_t> committed(const launch::Config& config) {
  PosixFiles files;
  return checkpoint::committed_steps(files, launch::checkpoint_folder(config.run.dir));
}

std::filesystem::path folder_of(const launch::Config& config, std::int64_t step) {
  return launch::checkpoint_folder(config.run.dir) / checkpoint::step_name(step);
}

class Saves : public testing::TestWithParam<Kept> {
 protected:
  // A checkpoint behind every step, all of which stay.
  launch::Config config(CheckpointStrategy strategy) {
    launch::Config config = job_.config(kSavingRanks, 2, 2, kSavedSteps);
    config.comm.bucket_mib = kSomeBuckets;
    config.train.shard = GetParam().shard;
    config.checkpoint.every = 1;
    config.checkpoint.keep = 100;
    config.checkpoint.strategy = strategy;
    return config;
  }
  // Under the order checker; `late`: of Variant::late.
  JobOutcome run(const launch::Config& config, const std::string& late = "") {
    return run_variant(
        config, kSavingRanks,
        {.name = late, .overlap = true, .bucket_mib = kSomeBuckets, .late_stream = late, .shard = config.train.shard});
  }

  SmallJob job_;
};
INSTANTIATE_TEST_SUITE_P(Strategies, Saves, testing::ValuesIn(kKept),
                         [](const auto& kept) { return std::string(kept.param.name); });

// Whichever stream is late: what was copied while the next step ran is what that step began with.
TEST_P(Saves, HoldTheSameBytesAsIfTrainingHadWaited) {
  const launch::Config waiting = config(CheckpointStrategy::kSync);
  run(waiting);
  for (const char* late : kLateStreams) {
    SCOPED_TRACE(late);
    const launch::Config beside = config(GetParam().strategy);
    const JobOutcome outcome = run(beside, late);
    EXPECT_EQ(outcome.ranks.front().result.steps_done, kSavedSteps);
    std::vector<std::int64_t> steps = committed(beside);
    for (const std::int64_t step : steps) {
      SCOPED_TRACE(testing::Message() << "step " << step);
      expect_equal_checkpoints(folder_of(beside, step), folder_of(waiting, step));
    }
    EXPECT_EQ(steps.size(), static_cast<std::size_t>(kSavedSteps)) << "each was waited for";
  }
}

// From each that it kept (sanitizers: from some), newest first, a run ends as if it had never been cut.
TEST_P(Saves, AreWhereARunGoesOnFrom) {
  launch::Config waiting = config(CheckpointStrategy::kSync);
  run(waiting);
  launch::Config beside = config(GetParam().strategy);
  run(beside);
  beside.checkpoint.resume = launch::Resume::kMust;
  const std::vector<std::int64_t> kept = committed(beside);
  ASSERT_EQ(kept.size(), static_cast<std::size_t>(kSavedSteps));
  for (std::size_t i = 0; i < kept.size(); i += kEveryNthSave) {
    const std::int64_t from = kept[i];
    SCOPED_TRACE(testing::Message() << "from step " << from);
    PosixFiles files;
    const auto choices = nlohmann::json::parse(checkpoint::read_manifest(files, folder_of(beside, from)).meta.choices);
    EXPECT_EQ(choices.at("checkpoint_strategy"), name_of(launch::planned_strategy(GetParam().strategy)));
    for (const std::int64_t step : committed(beside)) {
      if (step > from) std::filesystem::remove_all(folder_of(beside, step));
    }
    const JobOutcome outcome = run(beside);
    EXPECT_EQ(outcome.ranks.front().result.first_step, from);
    expect_equal_checkpoints(folder_of(beside, kSavedSteps), folder_of(waiting, kSavedSteps));
  }
}

// ---- A disk that is slow or fails.

// Files in which the first sync of a rank's file of `step` waits at a gate, or fails.
class DiskOf final : public ForwardingFiles {
 public:
  DiskOf(std::int64_t step, int error_number = 0)
      : ForwardingFiles(posix_), name_(checkpoint::step_name(step) + ".tmp-"), error_number_(error_number) {}

  std::unique_ptr<File> open(const std::filesystem::path& path, OpenMode mode) override {
    auto file = ForwardingFiles::open(path, mode);
    const bool meant = mode == OpenMode::kCreateNew && path.string().find(name_) != std::string::npos;
    return meant ? std::make_unique<SlowFile>(*this, std::move(file)) : std::move(file);
  }
  Gate gate;
  std::atomic<int> failed{0};

 private:
  class SlowFile final : public ForwardingFile {
   public:
    SlowFile(DiskOf& disk, std::unique_ptr<File> inner) : ForwardingFile(std::move(inner)), disk_(disk) {}
    void sync() override {
      if (disk_.error_number_ != 0) {
        ++disk_.failed;
        throw io_error("sync", path(), disk_.error_number_);
      }
      disk_.gate.pass();
      ForwardingFile::sync();
    }

   private:
    DiskOf& disk_;
  };

  PosixFiles posix_;
  const std::string name_;
  const int error_number_;
};

struct DiskRun {
  std::vector<RankOutcome> ranks;
  std::vector<std::string> errors = std::vector<std::string>(kSavingRanks);
  std::vector<int> exit_codes = std::vector<int>(kSavingRanks);
  std::vector<std::int64_t> last_told = std::vector<std::int64_t>(kSavingRanks);  // the last step that a rank heard of
  std::string output;
};

// `before_step`: on each rank's thread, with its trainer.
DiskRun run_on(DiskOf& disk, const launch::Config& config,
               const std::function<void(int rank, std::int64_t step, launch::Trainer&)>& before_step,
               const std::function<int()>& stop_requested = {}) {
  const Watchdog watchdog("a run on a slow disk");
  DiskRun run;
  testing::internal::CaptureStderr();
  run.ranks = run_threads(config, kSavingRanks, [&](int rank, const RunRank& run_rank) {
    const auto index = static_cast<std::size_t>(rank);
    const auto device = make_cpu_device();
    launch::Trainer* trainer = nullptr;
    RankSetup setup{.device = device.get()};
    setup.files = &disk;
    setup.log_level = LogLevel::kWarning;
    setup.hooks.stop_requested = stop_requested;
    setup.hooks.before_first_step = [&](launch::Trainer& started) { trainer = &started; };
    setup.hooks.before_step = [&](std::int64_t step) { before_step(rank, step, *trainer); };
    setup.hooks.on_step = [&](const launch::StepSummary& step) { run.last_told[index] = step.step; };
    try {
      run_rank(std::move(setup));
    } catch (const Error& error) {
      run.errors[index] = error.what();
      run.exit_codes[index] = static_cast<int>(error.exit_code());
    }
  });
  run.output = testing::internal::GetCapturedStderr();
  return run;
}

void await_end(launch::Trainer& trainer) {
  EXPECT_TRUE(wait_until([&] { return trainer.checkpointer().ended(); }));
}

class SlowDisk : public testing::TestWithParam<CheckpointStrategy> {
 protected:
  launch::Config config(launch::IfBusy if_busy) {
    launch::Config config = job_.config(kSavingRanks, 1, 2, kSavedSteps);
    config.checkpoint.every = 3;
    config.checkpoint.keep = 100;
    config.checkpoint.strategy = GetParam();
    config.checkpoint.if_busy = if_busy;
    return config;
  }
  SmallJob job_;
};
INSTANTIATE_TEST_SUITE_P(Strategies, SlowDisk,
                         testing::Values(CheckpointStrategy::kPinned, CheckpointStrategy::kLazy,
                                         CheckpointStrategy::kDevice),
                         [](const auto& strategy) {
                           return std::string(name_of(launch::planned_strategy(strategy.param)));
                         });

// What is due meanwhile is left out, whether it would wait or not: a standing disk holds up no run.
TEST_P(SlowDisk, LeavesOutWhatIsDueWhileItWrites) {
  for (const launch::IfBusy if_busy : {launch::IfBusy::kSkip, launch::IfBusy::kWait}) {
    // Waiting takes all of the patience that there is for a save, once.
    if (if_busy == launch::IfBusy::kWait && GetParam() != CheckpointStrategy::kLazy) continue;
    const launch::Config config = this->config(if_busy);
    DiskOf disk(3);
    std::atomic<bool> opened{false};
    const DiskRun run = run_on(disk, config, [&](int, std::int64_t step, launch::Trainer& trainer) {
      if (step != 10) return;        // behind steps 6 and 9
      if (!opened.exchange(true)) {  // the first rank to come
        EXPECT_TRUE(disk.gate.reached());
        EXPECT_FALSE(trainer.checkpointer().ended());
        disk.gate.open();
      }
      await_end(trainer);
    });
    EXPECT_EQ(run.errors, std::vector<std::string>(kSavingRanks));
    EXPECT_EQ(committed(config), (std::vector<std::int64_t>{12, 3}));
    PosixFiles files;
    EXPECT_EQ(launch::read_metrics(files, launch::metrics_path(config.run.dir)).checkpoints.size(), 2u);
    EXPECT_NE(run.output.find("a checkpoint is due behind step 6, "), std::string::npos) << run.output;
    EXPECT_NE(run.output.find(" s after that of step 3, which is still being written: it is left out. Checkpoints come "
                              "faster than the disk takes them; raise checkpoint.every"),
              std::string::npos)
        << run.output;
    EXPECT_NE(run.output.find("behind step 9"), std::string::npos) << "the second time is said too: " << run.output;
  }
}

// The next one is begun when the one before is durable: nothing is left out where the disk is only slow.
TEST_P(SlowDisk, IsWaitedForByWhatIsDueNext) {
  const launch::Config config = this->config(launch::IfBusy::kWait);
  DiskOf disk(3);
  std::thread opener;
  const DiskRun run = run_on(disk, config, [&](int rank, std::int64_t step, launch::Trainer&) {
    if (rank != 0 || step != 5) return;
    opener = std::thread([&disk] {
      EXPECT_TRUE(wait_until([&] { return disk.gate.reached(); }));
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      disk.gate.open();
    });
  });
  opener.join();
  EXPECT_EQ(run.errors, std::vector<std::string>(kSavingRanks));
  EXPECT_EQ(committed(config), (std::vector<std::int64_t>{12, 9, 6, 3}));
}

// A stop, and the end of a run, wait for what is written, however long that takes, and then keep their own step.
TEST_P(SlowDisk, IsWaitedForByAStopAndAtTheEnd) {
  for (const bool stops : {false, true}) {
    SCOPED_TRACE(stops ? "stop" : "end");
    launch::Config config = this->config(launch::IfBusy::kSkip);
    config.checkpoint.every = stops ? 3 : 9;  // none comes between
    DiskOf disk(*config.checkpoint.every);
    std::atomic<std::int64_t> at{0};
    std::thread opener;
    const DiskRun run = run_on(
        disk, config,
        [&](int rank, std::int64_t step, launch::Trainer&) {
          if (rank != 0) return;
          at = step;
          if (step != (stops ? 3 : kSavedSteps - 1)) return;
          opener = std::thread([&disk] {
            EXPECT_TRUE(wait_until([&] { return disk.gate.reached(); }));
            std::this_thread::sleep_for(std::chrono::milliseconds(50));
            disk.gate.open();
          });
        },
        [&] { return stops && at >= 3 ? SIGUSR1 : 0; });
    opener.join();
    EXPECT_EQ(run.errors, std::vector<std::string>(kSavingRanks));
    const launch::TrainResult& result = run.ranks.front().result;
    EXPECT_EQ(result.stop_signal, stops ? SIGUSR1 : 0);
    EXPECT_EQ(committed(config), (std::vector<std::int64_t>{result.steps_done, *config.checkpoint.every}));
    if (stops) {
      EXPECT_LT(result.steps_done, kSavedSteps);
    }
  }
}

// One rank's disk fails: every rank hears it behind the same step, and the checkpoint before is there.
TEST_P(SlowDisk, ThatFailsEndsTheRunOneStepLater) {
  for (const int error_number : {EIO, ENOSPC}) {
    const launch::Config config = this->config(launch::IfBusy::kWait);
    DiskOf disk(6, error_number);
    const DiskRun run = run_on(disk, config, [&](int, std::int64_t step, launch::Trainer& trainer) {
      if (step == 6) await_end(trainer);
    });
    EXPECT_EQ(disk.failed, kSavingRanks);
    for (std::size_t rank = 0; rank < kSavingRanks; ++rank) {
      EXPECT_EQ(run.exit_codes[rank], static_cast<int>(ExitCode::kStorage)) << run.errors[rank];
      EXPECT_NE(run.errors[rank].find("step-00000006.tmp-1"), std::string::npos) << run.errors[rank];
      EXPECT_EQ(run.last_told[rank], 6);
    }
    EXPECT_EQ(committed(config), std::vector<std::int64_t>{3});
    PosixFiles files;
    checkpoint::verify_checkpoint(files, folder_of(config, 3));
    for (const std::string& name : files.list(launch::checkpoint_folder(config.run.dir)))
      EXPECT_EQ(name.find(".tmp-"), std::string::npos) << "left over: " << name;
  }
}

// At the last moment, too.
TEST_P(SlowDisk, ThatFailsAtTheEndEndsTheRunSo) {
  const launch::Config config = this->config(launch::IfBusy::kWait);
  DiskOf disk(12, ENOSPC);
  const DiskRun run = run_on(disk, config, [](int, std::int64_t, launch::Trainer&) {});
  EXPECT_EQ(run.exit_codes, std::vector<int>(kSavingRanks, static_cast<int>(ExitCode::kStorage)));
  EXPECT_EQ(committed(config).front(), 9);
}

}  // namespace
}  // namespace strake::test
