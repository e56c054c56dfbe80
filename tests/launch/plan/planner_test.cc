// What a plan says, beside what a run takes.
#include "launch/plan/planner.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <limits>
#include <mutex>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "comm/plan_communicator.h"
#include "comm/staged/staged_communicator.h"
#include "launch/job/devices.h"
#include "launch/job/job_inputs.h"
#include "launch/plan/gpu_experience.h"
#include "tests/integration/small_job.h"
#include "tests/support/thrown_by.h"

namespace strake::launch {
namespace {

using test::thrown_by;

struct PlannedCell {
  int ranks, accumulation;
  models::Recompute recompute;
  bool evaluates;
  const char* kind = "gpt2";
  CommBackend backend = CommBackend::kAuto;
  SplitTable split = SplitTable::kNever;
};

void PrintTo(const PlannedCell& cell, std::ostream* out) {
  *out << cell.kind << ", " << cell.ranks << " ranks, " << cell.accumulation << " micro-batches"
       << (cell.evaluates ? ", evaluates" : "") << (cell.backend == CommBackend::kStaged ? ", staged" : "")
       << (cell.split == SplitTable::kAlways ? ", split" : "");
}

// What the plan says of a bucket, beside what the schedule shows: behind the mark of its last gradient backward still
// computes, or not.
TEST(BucketsOfAPlan, AreFinalAtTheEndIfNoBackwardIsBehindThem) {
  test::SmallJob job;
  struct Head {
    const char* kind;
    bool tied;
    SplitTable split = SplitTable::kNever;
  };
  for (const auto& [kind, tied, split] :
       {Head{"gpt2", true}, Head{"gpt2", true, SplitTable::kAlways}, Head{"llama", true},
        Head{"llama", true, SplitTable::kAlways}, Head{"llama", false}}) {
    for (const models::Shard shard : {models::Shard::kNone, models::Shard::kOptimizer}) {
      for (const bool overlap : {true, false}) {
        for (const double bucket_mib : {1e-6, 0.01, 1024.0}) {
          SCOPED_TRACE(testing::Message() << kind << (tied ? ", tied, " : ", ") << name_of(shard) << ", overlap "
                                          << overlap << ", " << bucket_mib << " MiB");
          Config config = job.config(2, 2, 2, 1);
          config.model.kind = kind;
          config.model.tied_head = tied;
          config.comm.split_embedding = split;
          config.train.shard = shard;
          config.comm.overlap = overlap;
          config.comm.bucket_mib = bucket_mib;
          const JobInputs inputs = JobInputs::open(config, 0, 2);
          comm::PlanCommunicator communicator(0, 2);
          PlanDevice device;
          const StepPlan step = Trainer::plan(inputs.job, communicator, inputs.sources(), device);
          const Trainer trainer(inputs.job, device, communicator, inputs.sources(), &step);
          const std::vector<comm::Bucket>& buckets = trainer.buckets().buckets;

          std::size_t marks = 0, at_end = 0;
          const auto& entries = step.recording.entries;
          for (std::size_t i = 0; i < entries.size(); ++i) {
            if (entries[i].kind != RecordedEntry::Kind::kMark || !entries[i].name.starts_with("bucket ") ||
                !entries[i].name.ends_with(" ready, slot 0"))
              continue;
            const bool computes = std::any_of(
                entries.begin() + static_cast<std::ptrdiff_t>(i), entries.end(), [&](const RecordedEntry& entry) {
                  return entry.kind == RecordedEntry::Kind::kOperation && entry.stream == entries[i].stream &&
                         entry.phase == Phase::kBackward && entry.kernel != "copy";
                });
            ASSERT_LT(marks, buckets.size());
            EXPECT_EQ(buckets[marks].final_at_end, !computes) << entries[i].name;
            at_end += buckets[marks++].final_at_end ? 1 : 0;
          }
          EXPECT_EQ(marks, buckets.size());
          const bool positions = kind == std::string("gpt2"), tokens = split == SplitTable::kNever;
          const bool together = positions && tokens && bucket_mib > 0.001;
          // With neither the first layer's norm is what backward ends with.
          EXPECT_EQ(at_end, together || !(positions || tokens) ? 1u : (positions ? 1u : 0u) + (tokens ? 1u : 0u));
          EXPECT_FALSE(buckets.front().final_at_end);
        }
      }
    }
  }
}

// The head's gradient is the first of backward: one that is not tied is reduced while all layers are still to come.
TEST(BucketsOfAPlan, TheFirstHoldsTheHeadThatIsNotTied) {
  test::SmallJob job;
  Config config = job.config(2, 1, 2, 1);
  config.model.kind = "llama";
  config.comm.bucket_mib = 1e-6;
  const JobInputs inputs = JobInputs::open(config, 0, 2);
  comm::PlanCommunicator communicator(0, 2);
  PlanDevice device;
  const StepPlan step = Trainer::plan(inputs.job, communicator, inputs.sources(), device);
  const Trainer trainer(inputs.job, device, communicator, inputs.sources(), &step);
  EXPECT_EQ(trainer.parameters().layout().spec(trainer.buckets().buckets.front().first).name, "head.weight");
  EXPECT_EQ(trainer.buckets().buckets.front().first, trainer.buckets().buckets.front().last);
  std::vector<std::string> backward;  // up to where its reduction is enqueued
  for (const RecordedEntry& entry : step.recording.entries) {
    if (entry.kind != RecordedEntry::Kind::kOperation) continue;
    if (entry.name == "bucket 0 all-reduce") break;
    if (entry.phase == Phase::kBackward) backward.push_back(entry.name);
  }
  EXPECT_EQ(backward, (std::vector<std::string>{"head d_weight"}));
}

// Of a split table the head's part is reduced first, under all of backward; at its end only rows are left.
TEST(BucketsOfAPlan, ASplitTableIsReducedFirstAndItsRowsLast) {
  test::SmallJob job;
  for (const models::Shard shard : {models::Shard::kNone, models::Shard::kOptimizer}) {
    for (const bool overlap : {true, false}) {
      SCOPED_TRACE(testing::Message() << name_of(shard) << ", overlap " << overlap);
      Config config = job.config(3, 2, 2, 1);
      config.comm.bucket_mib = 1e-6;
      config.comm.overlap = overlap;
      config.comm.split_embedding = SplitTable::kAlways;
      config.train.shard = shard;
      const JobInputs inputs = JobInputs::open(config, 1, 3);
      comm::PlanCommunicator communicator(1, 3);
      PlanDevice device;
      const StepPlan step = Trainer::plan(inputs.job, communicator, inputs.sources(), device);
      const Trainer trainer(inputs.job, device, communicator, inputs.sources(), &step);
      const std::size_t buckets = trainer.buckets().buckets.size();
      const bool sharded = shard == models::Shard::kOptimizer;
      const std::string head = sharded ? "bucket 0 reduce-scatter" : "bucket 0 all-reduce";
      std::vector<std::string> collectives, computed;  // in the last micro-batch's backward, before the head's part
      bool reduces = false;
      double row_bytes = 0;
      for (const RecordedEntry& entry : step.recording.entries) {
        if (entry.kind != RecordedEntry::Kind::kOperation) continue;
        reduces = reduces || entry.name == head;
        if (entry.phase == Phase::kForward) computed.clear();
        if (entry.phase == Phase::kBackward && !reduces && entry.kernel != "copy") computed.push_back(entry.name);
        if (entry.phase == Phase::kComm) collectives.push_back(entry.name);
        if (entry.name == "token rows all-gather") row_bytes = entry.bytes;
      }
      EXPECT_EQ(computed.size() == 1, overlap) << "the head's own";
      EXPECT_EQ(computed.front(), "head d_weight");
      // Ids, buckets and rows; sharded, the norm's sums and gathers of weights.
      ASSERT_EQ(collectives.size(), sharded ? 2 * buckets + 3 : buckets + 2);
      EXPECT_EQ(collectives[overlap ? 1 : 0], head);
      EXPECT_EQ(collectives[overlap ? 0 : buckets], "token ids all-gather");
      EXPECT_EQ(collectives[buckets + 1], "token rows all-gather");
      EXPECT_EQ(row_bytes, 2.0 * 2 * 2 * 16 * 16 * sizeof(float)) << "of two micro-batches, to two others";
      if (!sharded) continue;
      EXPECT_EQ(collectives[buckets + 3], "bucket 0 all-gather") << "forward begins with the token table";
      EXPECT_EQ(collectives[buckets + 4], fmt::format("bucket {} all-gather", buckets - 1)) << "and positions";
      EXPECT_EQ(collectives.back(), "bucket 1 all-gather");
    }
  }
}

class PlanOfARun : public testing::TestWithParam<PlannedCell> {};

// All arenas of all ranks, with those of checkpoints.
TEST_P(PlanOfARun, IsWhatItTakes) {
  const PlannedCell& cell = GetParam();
  test::SmallJob job;
  Config config = job.config(cell.ranks, cell.accumulation, 2, 1);
  config.model.kind = cell.kind;
  config.train.recompute = cell.recompute;
  config.comm.bucket_mib = 0.01;
  config.comm.backend = cell.backend;
  config.comm.split_embedding = cell.split;
  if (cell.evaluates) config.data.val = {job.val_tokens().string()};
  Config without_files = config;
  without_files.data.train = {"/nowhere/train.bin"};
  if (cell.evaluates) without_files.data.val = {"/nowhere/val.bin"};
  Planner planner({.kind = DeviceKind::kCpu, .ranks = cell.ranks}, test::kVocab);
  const RankPlan plan = planner.plan(without_files);

  comm::ThreadsWorld world(cell.ranks);
  std::mutex mutex;
  test::run_ranks(world, [&](int rank) {
    const auto control = world.make_control(rank);
    const auto cpu = make_cpu_device();
    const auto communicator = make_communicator(*cpu, *control, world.make_communicator(rank), config.comm);
    PosixFiles files;
    const JobInputs inputs = JobInputs::open(config, rank, cell.ranks);
    const StepPlan step = Trainer::plan(inputs.job, *communicator, inputs.sources());
    Trainer trainer(inputs.job, *cpu, *communicator, inputs.sources(), &step);
    trainer.keep_checkpoints(files, *control, {.directory = job.folder() / "ckpt", .keep = 1});
    trainer.allocate();
    const std::lock_guard lock(mutex);
    const MemoryTable taken = trainer.memory_table();
    EXPECT_EQ(cpu->allocated_bytes(), taken.size_bytes(MemoryKind::kDevice) + taken.size_bytes(MemoryKind::kHost));
    if (rank != 0) {
      EXPECT_LE(taken.size_bytes(MemoryKind::kHost), plan.memory.size_bytes(MemoryKind::kHost));
      EXPECT_EQ(taken.size_bytes(MemoryKind::kDevice), plan.memory.size_bytes(MemoryKind::kDevice));
      return;
    }
    EXPECT_EQ(plan.memory.rows, taken.rows);
    EXPECT_EQ(plan.needed_bytes(), cpu->allocated_bytes());
    EXPECT_EQ(plan.alive_bytes, step.activations.peak_bytes);
    EXPECT_EQ(plan.recomputed_flops, step.recording.recomputed_flops());
    EXPECT_EQ(plan.buckets.describe(), trainer.buckets().describe());
  });
}

INSTANTIATE_TEST_SUITE_P(Cells, PlanOfARun,
                         testing::Values(PlannedCell{1, 1, models::Recompute::kNone, false},
                                         PlannedCell{1, 3, models::Recompute::kBlock, true},
                                         PlannedCell{2, 1, models::Recompute::kNormActivation, true},
                                         PlannedCell{3, 2, models::Recompute::kNone, false},
                                         PlannedCell{2, 2, models::Recompute::kBlock, true, "llama"},
                                         PlannedCell{3, 1, models::Recompute::kNone, false, "gpt2",
                                                     CommBackend::kStaged},
                                         PlannedCell{3, 3, models::Recompute::kNone, true, "gpt2", CommBackend::kAuto,
                                                     SplitTable::kAlways}));

Config shape_config(std::int64_t layers, std::int64_t channels, std::int64_t batch) {
  Config config;
  config.model.layers = layers;
  config.model.channels = channels;
  config.model.heads = channels / 64;
  config.model.vocab = 50257;
  config.data.train = {"nowhere"};
  config.train.sequence = 1024;
  config.train.micro_batch = config.train.global_batch = batch;
  return config;
}

RankPlan plan_on(const PlanTarget& target, const Config& config) {
  Config of_ranks = config;
  of_ranks.train.global_batch *= target.ranks;
  return Planner(target, config.model.vocab).plan(of_ranks);
}

std::size_t row_bytes(const RankPlan& plan, const std::string& name) {
  const auto& rows = plan.memory.rows;
  const auto found = std::ranges::find(rows, name, &MemoryRow::name);
  return found == rows.end() ? 0 : found->size_bytes;
}

struct UnreadTokens final : data::TokenSource {
  std::int64_t tokens() const override { return 1 << 20; }
  void read(std::int64_t, std::span<std::int32_t>) override { ADD_FAILURE() << "a plan reads no tokens"; }
  std::string describe() const override { return "unread"; }
};

std::size_t resident_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::size_t>(usage.ru_maxrss) * 1024;
}

TEST(Planner, TakesNoMemoryOfTheModel) {
  const std::size_t before = resident_bytes();
  const RankPlan plan = plan_on({.kind = DeviceKind::kCuda, .ranks = 8}, shape_config(48, 1600, 8));
  EXPECT_GT(plan.memory.size_bytes(MemoryKind::kDevice), std::size_t{40} << 30);
  EXPECT_GT(plan.parameters, 1'500'000'000);
  EXPECT_LT(resident_bytes() - before, std::size_t{256} << 20);
}

TEST(Planner, PlansForAGpuThatIsNotHere) {
  const Config config = shape_config(12, 768, 4);
  const RankPlan gpu = plan_on({.kind = DeviceKind::kCuda, .ranks = 2}, config);
  EXPECT_EQ(gpu.job.dtype, DType::kBF16);
  EXPECT_GT(row_bytes(gpu, "bf16 weights"), 0u);
  EXPECT_EQ(row_bytes(gpu, "workspace"), expected_workspace_bytes(gpu.job));
  EXPECT_EQ(row_bytes(gpu, kContextAndLibraries), expected_context_bytes(2));
  for (const MemoryRow& row : gpu.memory.rows) {
    EXPECT_EQ(row.estimated, row.name == "workspace" || row.name == kContextAndLibraries) << row.name;
  }
  EXPECT_EQ(gpu.needed_bytes(), gpu.memory.size_bytes(MemoryKind::kDevice)) << "host memory is apart";
  EXPECT_EQ(plan_on({.kind = DeviceKind::kCuda, .ranks = 1}, config).memory.rows.back().size_bytes,
            expected_context_bytes(1));

  const RankPlan cpu = plan_on({.kind = DeviceKind::kCpu, .ranks = 2}, config);
  EXPECT_FALSE(cpu.memory.estimated());
  EXPECT_EQ(row_bytes(cpu, kContextAndLibraries), 0u);
  EXPECT_EQ(cpu.flops, gpu.flops) << "one model";
  EXPECT_NEAR(gpu.flops / static_cast<double>(4 * 1024), gpu.job.shape.model_flops_per_token(),
              0.1 * gpu.job.shape.model_flops_per_token())
      << "MFU's convention counts causal attention by half";
}

TEST(Planner, RanksThatShareAGpuTakeHostMemoryAndNothingForNccl) {
  Config config = shape_config(2, 128, 2);
  config.comm.backend = CommBackend::kStaged;
  const RankPlan plan = plan_on({.kind = DeviceKind::kCuda, .ranks = 4}, config);
  EXPECT_EQ(row_bytes(plan, "communication staging"), comm::StagedCommunicator::staging_bytes_of(4));
  EXPECT_EQ(row_bytes(plan, kContextAndLibraries), expected_context_bytes(1));
  EXPECT_EQ(row_bytes(plan_on({.kind = DeviceKind::kCuda, .ranks = 1}, config), "communication staging"), 0u);
}

// What each strategy takes beside the state: a rank's part in host memory, and on the device where it is copied there.
TEST(Planner, StrategiesOfCheckpoints) {
  Config config = shape_config(2, 128, 2);
  const PlanTarget target{.kind = DeviceKind::kCuda, .ranks = 2};
  const std::size_t staging_bytes = row_bytes(plan_on(target, config), "checkpoint staging");
  EXPECT_GT(staging_bytes, 0u);
  for (const auto strategy : {CheckpointStrategy::kAuto, CheckpointStrategy::kSync, CheckpointStrategy::kPinned,
                              CheckpointStrategy::kLazy, CheckpointStrategy::kDevice}) {
    config.checkpoint.strategy = strategy;
    const RankPlan plan = plan_on(target, config);
    EXPECT_EQ(row_bytes(plan, "checkpoint staging"), staging_bytes);
    const std::size_t snapshot_bytes = row_bytes(plan, "checkpoint snapshot");
    if (strategy != CheckpointStrategy::kDevice) {
      EXPECT_EQ(snapshot_bytes, 0u);
      continue;
    }
    const auto parameters = static_cast<std::size_t>(plan.parameters);
    EXPECT_GE(snapshot_bytes, 12 * parameters / 2 - 12);  // f32 weights and both moments, shared out
    EXPECT_LE(snapshot_bytes, staging_bytes);
  }
}

TEST(Planner, AnyNumberOfRanks) {
  Config config = shape_config(2, 128, 2);
  config.comm.split_embedding = SplitTable::kNever;  // whose rows are in transit too
  std::size_t staging = std::numeric_limits<std::size_t>::max();
  for (const int ranks : {1, 3, 8, 9, 64, 77}) {
    const RankPlan plan = plan_on({.kind = DeviceKind::kCuda, .ranks = ranks}, config);
    EXPECT_EQ(plan.buckets.wire, ranks > 8 ? DType::kF32 : DType::kBF16) << ranks;
    EXPECT_EQ(row_bytes(plan, "gradients in transit") > 0, ranks > 8) << ranks;
    EXPECT_EQ(plan.bytes.sent > 0, ranks > 1) << ranks;
    EXPECT_EQ(plan.job.derived.accumulation, 1) << ranks;
    EXPECT_LE(row_bytes(plan, "checkpoint staging"), staging) << ranks << ": ranks share out checkpoints";
    staging = row_bytes(plan, "checkpoint staging");
  }
}

TEST(Planner, TwoMicroBatchesTellTheMemoryOfAll) {
  Config config = shape_config(3, 128, 2);
  config.train.global_batch = 14;
  Planner planner({.kind = DeviceKind::kCuda}, config.model.vocab);
  const RankPlan all = planner.plan(config), two = planner.plan(config, 2);
  EXPECT_EQ(all.job.derived.accumulation, 7);
  EXPECT_EQ(all.memory.rows, two.memory.rows);
  EXPECT_NEAR(all.flops / two.flops, 3.5, 1e-9);
}

// Micro-batches between the first and the last are declared once, however many they are.
TEST(Planner, CostsOfManyMicroBatchesAreThoseOfADryRunOfAll) {
  constexpr std::int64_t kMicroBatches = 9;
  for (const int ranks : {1, 2}) {
    Config config = shape_config(3, 128, 2);
    config.train.recompute = models::Recompute::kBlock;
    config.train.global_batch = 2 * ranks * kMicroBatches;
    const PlanTarget target{.kind = DeviceKind::kCuda, .ranks = ranks};
    const RankPlan plan = Planner(target, config.model.vocab).plan(config);

    comm::PlanCommunicator communicator(0, ranks);
    UnreadTokens tokens;
    PlanDevice device(DeviceKind::kCuda);
    const Recording all = Trainer::plan(plan.job, communicator, {&tokens, nullptr}, device).recording;
    EXPECT_EQ(plan.recomputed_flops, all.recomputed_flops());
    EXPECT_EQ(plan.bytes.forward, all.bytes(Phase::kForward));
    EXPECT_EQ(plan.bytes.backward, all.bytes(Phase::kBackward));
    EXPECT_EQ(plan.bytes.optimizer, all.bytes(Phase::kOptimizer));
    EXPECT_EQ(plan.bytes.input, all.bytes(Phase::kInput));
    double flops = 0;
    for (const RecordedEntry& entry : all.entries) {
      flops += entry.recomputed || entry.phase == Phase::kComm ? 0 : entry.flops;
    }
    EXPECT_EQ(plan.flops, flops);
  }
}

TEST(Planner, ThousandsOfMicroBatchesTakeNoMoreMemoryThanAFew) {
  Config config = shape_config(12, 128, 1);
  config.train.global_batch = 1 << 14;
  const std::size_t before = resident_bytes();
  const RankPlan plan = Planner({.kind = DeviceKind::kCuda}, config.model.vocab).plan(config);
  EXPECT_EQ(plan.job.derived.accumulation, 1 << 14);
  EXPECT_LT(resident_bytes() - before, std::size_t{1} << 30) << "each of them declared takes gigabytes";
}

TEST(Planner, SaysWhatIsAliveAtTheFullestOperation) {
  const RankPlan plan = plan_on({.kind = DeviceKind::kCpu}, shape_config(5, 128, 2));
  ASSERT_FALSE(plan.peak.empty());
  EXPECT_FALSE(plan.fullest_operation.empty());
  std::size_t sum = 0;
  bool of_all_layers = false;
  for (const PeakShare& share : plan.peak) {
    sum += share.size_bytes;
    of_all_layers = of_all_layers || (share.name.starts_with("h.*.") && share.count == 5);
  }
  EXPECT_TRUE(of_all_layers);
  EXPECT_LE(sum, plan.alive_bytes);
  EXPECT_LE(plan.alive_bytes, row_bytes(plan, "activations"));
  EXPECT_TRUE(std::ranges::is_sorted(plan.peak, std::ranges::greater(), &PeakShare::size_bytes));
}

TEST(Planner, RefusesWhatARunRefuses) {
  Config config = shape_config(2, 128, 2);
  Planner cpu({.kind = DeviceKind::kCpu}, 50257), gpu({.kind = DeviceKind::kCuda}, 50257);
  EXPECT_TRUE(cpu.possible(config));
  config.train.dtype = ComputeType::kBF16;
  EXPECT_FALSE(cpu.possible(config));
  EXPECT_TRUE(gpu.possible(config));
  config.model.head_size = 300;
  EXPECT_FALSE(gpu.possible(config));
  EXPECT_NE(thrown_by<ConfigError>([&] { gpu.plan(config); }).find("or set run.device = cpu"), std::string::npos);
  config = shape_config(2, 128, 1 << 20);
  config.train.sequence = 1 << 24;
  const std::string of_cpu = thrown_by<ConfigError>([&] { cpu.plan(config); });
  EXPECT_NE(of_cpu.find("too large for any device; change the model"), std::string::npos) << of_cpu;
  EXPECT_EQ(of_cpu.find("run.device"), std::string::npos) << "it is the CPU: " << of_cpu;
}

// Shards of checkpoints are found once a model, and not kept for another.
TEST(Planner, PlansOneModelAfterAnother) {
  Planner planner({.kind = DeviceKind::kCuda, .ranks = 3}, 50257);
  for (const int layers : {2, 4, 2, 2}) {
    Config config = shape_config(layers, 128, 2);
    config.train.global_batch = 6;
    const PlanTarget target{.kind = DeviceKind::kCuda, .ranks = 3};
    EXPECT_EQ(planner.plan(config).memory.rows, Planner(target, 50257).plan(config).memory.rows) << layers;
  }
}

}  // namespace
}  // namespace strake::launch
