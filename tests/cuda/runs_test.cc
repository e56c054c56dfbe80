// Whole training runs on GPUs, ranks as threads with a GPU each: equal bits within a cell in deterministic mode,
// closeness without it and to the CPU device, order, and nothing taken from the device behind the first steps.
// docs/determinism.md states what is promised.

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <mutex>
#include <optional>
#include <set>
#include <string_view>
#include <tuple>

#include "checkpoint/directory.h"
#include "launch/plan/planner.h"
#include "launch/train/strategy_choice.h"
#include "tests/cuda/cuda_under_test.h"
#include "tests/integration/diverged_rank.h"
#include "tests/integration/dropped_wait.h"
#include "tests/integration/program_job.h"
#include "tests/integration/small_job.h"
#include "tests/integration/variants.h"
#include "tests/support/counting_device.h"
#include "tests/support/gpu_ranks.h"

namespace strake::test {
namespace {

using launch::ComputeType;

constexpr std::int64_t kSteps = 6;
// Heads of 32 channels: what cuDNN's attention takes.
constexpr JobShape kShape{.channels = 64, .sequence = 64, .learning_rate = 1e-2};
constexpr double kGpuBuckets = 0.03;

const char* name_of_type(ComputeType type) { return type == ComputeType::kBF16 ? "BF16" : "F32"; }

launch::Config gpu_config(SmallJob& job, int ranks, int accumulation, ComputeType dtype, std::int64_t steps = kSteps) {
  launch::Config config = job.config(ranks, accumulation, 2, steps);
  config.run.device = launch::DeviceChoice::kCuda;
  config.train.dtype = dtype;
  config.train.deterministic = true;
  return config;
}

MakeDevice on(GpuRanks& gpus) {
  return [&gpus](int rank) { return gpus(rank); };
}

struct Cell {
  int ranks, accumulation;
  ComputeType dtype;
};

class EqualBitsOnGpus : public testing::TestWithParam<Cell> {
 protected:
  void SetUp() override {
    if (const std::string reason = gpus_missing(GetParam().ranks); !reason.empty()) GTEST_SKIP() << reason;
  }
  static void SetUpTestSuite() { gpus_ = std::make_unique<GpuRanks>(/*deterministic=*/true); }
  static void TearDownTestSuite() { gpus_.reset(); }
  static inline std::unique_ptr<GpuRanks> gpus_;
};

TEST_P(EqualBitsOnGpus, WithinACell) {
  const Cell cell = GetParam();
  SCOPED_TRACE(testing::Message() << "seed of delays " << kDelaySeed);
  SmallJob job(kShape);
  std::optional<JobOutcome> expected;
  for (const Variant& variant : variants(kGpuBuckets)) {
    SCOPED_TRACE(variant.name);
    const JobOutcome run =
        run_variant(gpu_config(job, cell.ranks, cell.accumulation, cell.dtype), cell.ranks, variant, on(*gpus_));
    if (variant.bucket_mib == kOneBucket) {
      EXPECT_EQ(run.buckets, 2u);
    } else {
      EXPECT_GE(run.buckets, variant.bucket_mib == kGpuBuckets ? 6u : 20u);
    }
    if (!expected.has_value()) expected = run;
    expect_equal_bits(run, *expected, kSteps);
    if (HasFatalFailure()) return;
  }
}

constexpr Cell kCells[] = {{1, 1, ComputeType::kBF16}, {1, 2, ComputeType::kBF16}, {1, 2, ComputeType::kF32},
                           {2, 1, ComputeType::kBF16}, {2, 2, ComputeType::kBF16}, {2, 1, ComputeType::kF32},
                           {2, 2, ComputeType::kF32}};
INSTANTIATE_TEST_SUITE_P(Cells, EqualBitsOnGpus, testing::ValuesIn(kCells), [](const auto& cell_info) {
  const Cell& cell = cell_info.param;
  return "Gpus" + std::to_string(cell.ranks) + "Accumulation" + std::to_string(cell.accumulation) +
         name_of_type(cell.dtype);
});

class RunsOnTwoGpus : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = gpus_missing(2); !reason.empty()) GTEST_SKIP() << reason;
  }
};

// Also what is chosen per device (plans, algorithms) is chosen again: each run has new devices.
TEST_F(RunsOnTwoGpus, ARunRepeatsItself) {
  SmallJob job(kShape);
  const Variant variant{"repeated", true, kGpuBuckets};
  std::optional<JobOutcome> first;
  for (int run = 0; run < 2; ++run) {
    GpuRanks gpus(/*deterministic=*/true);
    const JobOutcome outcome = run_variant(gpu_config(job, 2, 2, ComputeType::kBF16), 2, variant, on(gpus));
    if (!first.has_value()) first = outcome;
    expect_equal_bits(outcome, *first, kSteps);
  }
}

TEST_F(RunsOnTwoGpus, ACutRunEndsAsTheUncut) {
  SmallJob job(kShape);
  const Variant variant{"as it was", true, kGpuBuckets}, other{"serial, one bucket", false, kOneBucket};
  for (const auto& [dtype, accumulation] : {std::pair(ComputeType::kBF16, 1), std::pair(ComputeType::kF32, 2)}) {
    SCOPED_TRACE(name_of_type(dtype));
    std::optional<GpuRanks> gpus;
    gpus.emplace(true);
    const JobOutcome uncut = run_variant(gpu_config(job, 2, accumulation, dtype), 2, variant, on(*gpus));
    gpus.emplace(true);
    expect_resumes_as(uncut, gpu_config(job, 2, accumulation, dtype), 2, 2, variant, variant, on(*gpus));
    expect_resumes_as(uncut, gpu_config(job, 2, accumulation, dtype), 2, 5, variant, other, on(*gpus));
  }
}

// Two ranks' sums have one order, whichever collective makes them.
TEST_F(RunsOnTwoGpus, ShardedAsReplicated) {
  SmallJob job(kShape);
  for (const auto& [dtype, accumulation] : {std::pair(ComputeType::kBF16, 1), std::pair(ComputeType::kF32, 2)}) {
    SCOPED_TRACE(name_of_type(dtype));
    std::optional<JobOutcome> expected;
    for (Variant variant : sharded_variants(kGpuBuckets)) {
      for (const models::Shard shard : {models::Shard::kNone, models::Shard::kOptimizer}) {
        variant.shard = shard;
        GpuRanks gpus(/*deterministic=*/true);
        JobOutcome run = run_variant(gpu_config(job, 2, accumulation, dtype), 2, variant, on(gpus));
        for (RankOutcome& rank : run.ranks) {
          // Replicated ranks tell f32 weights, sharded ones what the model reads: losses and norms must do.
          if (dtype == ComputeType::kBF16) rank.weights.assign(1, 0.0f);
        }
        if (!expected.has_value()) expected = run;
        expect_equal_bits(run, *expected, kSteps);
      }
    }
  }
}

TEST_F(RunsOnTwoGpus, EveryWaitIsLoadBearing) {
  SmallJob job(kShape);
  GpuRanks gpus(/*deterministic=*/true);
  for (const WaitingRun& run : kWaitingRuns) expect_every_wait_is_load_bearing(job, run, on(gpus));
}

// What is copied while the next step runs is what that step began with, whichever stream is late.
TEST_F(RunsOnTwoGpus, CheckpointsOfEveryStrategyHoldTheSameBytes) {
  using launch::CheckpointStrategy;
  SmallJob job(kShape);
  GpuRanks gpus(/*deterministic=*/true);
  for (const models::Shard shard : {models::Shard::kNone, models::Shard::kOptimizer}) {
    const auto run = [&](CheckpointStrategy strategy, const std::string& late) {
      launch::Config config = gpu_config(job, 2, 1, ComputeType::kBF16);
      config.checkpoint.every = 1;
      config.checkpoint.keep = 100;
      config.checkpoint.strategy = strategy;
      run_variant(config, 2,
                  {.name = late,
                   .overlap = true,
                   .bucket_mib = kGpuBuckets,
                   .late_stream = late,
                   .late_host = false,
                   .shard = shard},
                  on(gpus));
      return launch::checkpoint_folder(config.run.dir);
    };
    const auto waiting = run(CheckpointStrategy::kSync, "");
    for (const auto strategy : {CheckpointStrategy::kPinned, CheckpointStrategy::kLazy, CheckpointStrategy::kDevice}) {
      for (const char* late : {"", "copy-out", "compute"}) {
        SCOPED_TRACE(testing::Message() << name_of(launch::planned_strategy(strategy)) << ", late: " << late);
        const auto beside = run(strategy, late);
        for (std::int64_t step = 1; step <= kSteps; ++step) {
          const std::string name = checkpoint::step_name(step);
          expect_equal_checkpoints(beside / name, waiting / name);
        }
      }
    }
  }
}

TEST_F(RunsOnTwoGpus, AFlippedBitOnOneRankIsFoundBeforeTheNextCheckpoint) {
  SmallJob job(kShape);
  GpuRanks gpus(/*deterministic=*/true);
  expect_a_flipped_bit_ends_the_run([&] { return gpu_config(job, 2, 1, ComputeType::kBF16); }, on(gpus));
}

TEST_F(RunsOnTwoGpus, WithoutDeterminismLossesDifferLittle) {
  constexpr double kTolerance = 2e-2;
  SmallJob job({.channels = 64, .sequence = 64, .learning_rate = 3e-3});
  GpuRanks fixed(true), free(false);
  launch::Config config = gpu_config(job, 2, 2, ComputeType::kBF16, 20);
  const Variant variant{"some buckets", true, kGpuBuckets};
  const std::vector<double> expected = run_variant(config, 2, variant, on(fixed)).losses();
  config = gpu_config(job, 2, 2, ComputeType::kBF16, 20);
  config.train.deterministic = false;
  const std::vector<double> losses = run_variant(config, 2, variant, on(free)).losses();
  ASSERT_EQ(losses.size(), expected.size());
  double largest = 0;
  for (std::size_t step = 0; step < losses.size(); ++step) {
    largest = std::max(largest, std::abs(losses[step] - expected[step]));
    EXPECT_NEAR(losses[step], expected[step], kTolerance) << "step " << step + 1;
  }
  std::printf("largest difference of a loss without determinism, 20 steps: %.2g\n", largest);
}

TEST_F(RunsOnTwoGpus, AStepTakesNothingFromTheDevice) {
  SmallJob job(kShape);
  GpuRanks gpus(/*deterministic=*/true);
  launch::Config config = gpu_config(job, 2, 2, ComputeType::kBF16, 12);
  config.comm.bucket_mib = kGpuBuckets;
  config.checkpoint.every = 3;
  config.data.val = {job.val_tokens().string()};
  config.eval.every = 2;
  config.eval.batches = 4;
  // By then every kernel has run once, and NCCL has connected the ranks.
  constexpr std::int64_t kLoaded = 6;
  std::mutex mutex;
  run_threads(config, 2, [&](int rank, const RunRank& run) {
    const auto gpu = gpus(rank);
    CountingDevice device(*gpu);
    std::set<CountingDevice::Taken> seen;
    std::set<std::size_t> free_bytes;
    RankSetup setup{.device = &device};
    setup.hooks.before_step = [&](std::int64_t step) {
      seen.insert(device.taken());
      if (step > kLoaded) free_bytes.insert(free_gpu_bytes());
    };
    setup.hooks.on_report = [&](const launch::StepReport&) { seen.insert(device.taken()); };
    run(std::move(setup));
    const std::lock_guard lock(mutex);
    ASSERT_EQ(seen.size(), 1u);
    EXPECT_EQ(seen.begin()->streams, 4);
    EXPECT_EQ(free_bytes.size(), 1u) << "rank " << rank << ": the GPU's free memory changes between steps";
  });
}

// Of a model that takes some GB: there what kernels load when they first run is little.
TEST(MemoryTable, AgreesWithTheDriver) {
  if (const std::string reason = gpus_missing(1); !reason.empty()) GTEST_SKIP() << reason;
  SmallJob job({.channels = 1024, .sequence = 512, .learning_rate = 1e-3});
  launch::Config config = gpu_config(job, 1, 2, ComputeType::kBF16);
  config.model.layers = 8;
  config.model.heads = 16;
  GpuRanks gpus(/*deterministic=*/true);
  launch::MemoryTable table;
  run_threads(config, 1, [&](int rank, const RunRank& run) {
    const auto gpu = gpus(rank);
    launch::Trainer* trainer = nullptr;
    RankSetup setup{.device = gpu.get()};
    setup.hooks.before_first_step = [&](launch::Trainer& started) { trainer = &started; };
    setup.hooks.on_report = [&](const launch::StepReport&) { table = trainer->memory_table(); };
    run(std::move(setup));
  });
  std::printf("%s\n", table.describe().c_str());
  ASSERT_FALSE(table.rows.empty());
  if (!table.driver_bytes.has_value()) GTEST_SKIP() << "the driver does not tell";
  EXPECT_EQ(table.rows.back().name, launch::kContextAndLibraries);
  const auto driver_bytes = static_cast<double>(*table.driver_bytes);
  EXPECT_NEAR(static_cast<double>(table.size_bytes(MemoryKind::kDevice)), driver_bytes, 0.02 * driver_bytes);
}

// Arenas are the same; workspace and context are asked for, or estimated (launch/plan/gpu_experience.cc).
TEST(MemoryTable, OfAPlanWithoutTheGpuIsNearThatWithIt) {
  if (const std::string reason = gpus_missing(1); !reason.empty()) GTEST_SKIP() << reason;
  GpuRanks gpus(/*deterministic=*/false);
  const auto gpu = gpus(0);
  for (const char* example : {"gpt2-1.5b.toml", "llama-1b.toml"}) {
    launch::Config config = launch::load_config("", {"data.train=nowhere"});
    const bool gpt = std::string_view(example) == "gpt2-1.5b.toml";
    config.model.kind = gpt ? "gpt2" : "llama";
    config.model.layers = gpt ? 48 : 16;
    config.model.channels = gpt ? 1600 : 2048;
    config.model.heads = gpt ? 25 : 32;
    if (!gpt) config.model.kv_heads = 8;
    config.train.sequence = gpt ? 1024 : 4096;
    config.train.micro_batch = config.train.global_batch = gpt ? 32 : 8;
    config.train.recompute = models::Recompute::kBlock;
    const auto planned = [&](const Device* device) {
      launch::Planner planner({.kind = DeviceKind::kCuda, .device = device, .ranks = 1}, gpt ? 50257 : 128256);
      const launch::MemoryTable table = planner.plan(config).memory;
      std::printf("%s, %s:\n%s\n", example, device == nullptr ? "estimated" : "with the GPU", table.describe().c_str());
      return static_cast<double>(table.size_bytes(MemoryKind::kDevice));
    };
    const double with_it = planned(gpu.get());
    EXPECT_NEAR(planned(nullptr), with_it, 0.03 * with_it) << example;
  }
}

// One GPU and the CPU device, from the same weights on the same tokens.
class BesideTheCpu : public testing::Test {
 protected:
  static constexpr std::int64_t kManySteps = 50;

  void SetUp() override {
    if (const std::string reason = gpus_missing(1); !reason.empty()) GTEST_SKIP() << reason;
  }
  // The largest difference of a loss to the CPU device's in f32.
  static double difference(ComputeType dtype) {
    SmallJob job({.channels = 64, .sequence = 64, .learning_rate = 3e-3});
    const Variant variant{"beside the CPU", true, kOneBucket};
    launch::Config config = job.config(1, 1, 2, kManySteps);
    const std::vector<double> expected = run_variant(config, 1, variant).losses();
    GpuRanks gpus(/*deterministic=*/true);
    const std::vector<double> losses =
        run_variant(gpu_config(job, 1, 1, dtype, kManySteps), 1, variant, on(gpus)).losses();
    EXPECT_EQ(losses.size(), static_cast<std::size_t>(kManySteps));
    EXPECT_EQ(expected.size(), losses.size());
    EXPECT_LT(expected.back(), expected.front() - 0.5);  // of a training that moves
    double largest = 0;
    for (std::size_t step = 0; step < losses.size(); ++step) {
      largest = std::max(largest, std::abs(losses[step] - expected[step]));
    }
    std::printf("largest difference of a loss to the CPU device's, %s, %d steps: %.2g\n", name_of_type(dtype),
                static_cast<int>(kManySteps), largest);
    return largest;
  }
};

TEST_F(BesideTheCpu, LossesInF32DifferByRounding) { EXPECT_LT(difference(ComputeType::kF32), 1e-4); }
TEST_F(BesideTheCpu, LossesInBf16AreNear) { EXPECT_LT(difference(ComputeType::kBF16), 2e-2); }

}  // namespace
}  // namespace strake::test
