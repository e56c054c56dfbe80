// SmallJob: a GPT and token files so small that a run takes a fraction of a second, and its ranks as threads.
//
// The text has structure (each token mostly follows from the one before), so losses fall and every step changes
// weights; learning rates are high for the same reason: what goes wrong by a bit at one step shows in all later losses.
// Ranks run on the devices that a test makes; several GPUs talk through NCCL.
// Threads: the test's. Errors: what the parts throw.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "comm/threads/threads_world.h"
#include "data/token_file_writer.h"
#include "launch/job/devices.h"
#include "launch/train/train.h"
#include "runtime/device/cpu/cpu_device.h"
#include "runtime/device/host_memory.h"
#include "runtime/io/files.h"
#include "tests/support/rank_threads.h"
#include "tests/support/scratch_folder.h"

namespace strake::test {

inline constexpr std::int32_t kVocab = 60;  // padded to 128

// Writes a token file with its sidecar.
inline void write_tokens(const std::filesystem::path& path, std::int64_t tokens, std::uint64_t seed) {
  PosixFiles files;
  data::TokenFileInfo info;
  info.vocab = kVocab;
  info.tokenizer = {.name = "counted", .hash = "00000001"};
  info.source = "made by a test";
  data::TokenFileWriter writer(files, path, info);
  std::mt19937_64 random(seed);
  std::vector<std::int32_t> ids;
  std::int32_t id = 0;
  for (std::int64_t i = 0; i < tokens; ++i) {
    id = random() % 4 == 0 ? static_cast<std::int32_t>(random() % kVocab) : (id * 7 + 3) % kVocab;
    ids.push_back(id);
  }
  writer.append(ids);
  writer.finish();
  writer.publish();
}

struct RankOutcome {
  launch::TrainResult result;
  std::vector<launch::StepSummary> steps;
  std::vector<float> weights;  // after the last step, parameter by parameter
};

// Every loss, every gradient norm and every weight, bit for bit.
inline void expect_equal_bits(const RankOutcome& outcome, const RankOutcome& expected, std::int64_t steps) {
  ASSERT_EQ(outcome.steps.size(), static_cast<std::size_t>(steps));
  ASSERT_EQ(expected.steps.size(), static_cast<std::size_t>(steps));
  for (std::size_t step = 0; step < outcome.steps.size(); ++step) {
    const launch::StepSummary &mine = outcome.steps[step], &other = expected.steps[step];
    EXPECT_EQ(mine.loss, other.loss) << "step " << mine.step;
    EXPECT_EQ(mine.grad_norm, other.grad_norm) << "step " << mine.step;
  }
  ASSERT_FALSE(outcome.weights.empty());
  ASSERT_EQ(outcome.weights.size(), expected.weights.size());
  const std::size_t size_bytes = outcome.weights.size() * sizeof(float);
  EXPECT_EQ(0, std::memcmp(outcome.weights.data(), expected.weights.data(), size_bytes)) << "weights differ";
}

// What tests put around or into a rank. Every member may be empty.
struct RankSetup {
  Device* device = nullptr;  // REQUIRES: set
  launch::TrainHooks hooks = {};
  Files* files = nullptr;                 // null: the operating system's
  LogLevel log_level = LogLevel::kError;  // of what goes to standard error
};

// Of a job's model and data.
struct JobShape {
  std::int64_t channels = 16;
  std::int64_t sequence = 16;
  double learning_rate = 2e-2;
};

class SmallJob {
 public:
  explicit SmallJob(JobShape shape = {}) : shape_(shape) {
    write_tokens(train_tokens(), 375 * shape.sequence, 1);
    write_tokens(val_tokens(), 94 * shape.sequence, 2);
  }

  std::filesystem::path train_tokens() const { return folder_.path() / "train.bin"; }
  std::filesystem::path val_tokens() const { return folder_.path() / "val.bin"; }
  const std::filesystem::path& folder() const { return folder_.path(); }

  // A config of `accumulation` micro-batches a rank and step, in a run folder not used before.
  launch::Config config(int ranks, int accumulation, std::int64_t micro_batch, std::int64_t steps) {
    launch::Config config;
    config.run.dir = (folder_.path() / ("run-" + std::to_string(++runs_))).string();
    config.run.seed = 3;
    config.model.layers = 2;
    config.model.channels = shape_.channels;
    config.model.heads = 2;
    config.data.train = {train_tokens().string()};
    config.train.steps = steps;
    config.train.global_batch = ranks * accumulation * micro_batch;
    config.train.micro_batch = micro_batch;
    config.train.sequence = shape_.sequence;
    config.optimizer.learning_rate = shape_.learning_rate;
    config.optimizer.min_learning_rate = shape_.learning_rate / 10;
    config.optimizer.warmup_steps = 2;
    config.optimizer.clip_norm = 0.5;  // below what the first steps have: clipping takes part
    return config;
  }

 private:
  JobShape shape_;
  ScratchFolder folder_{ScratchFolder::Where::kMemory};
  int runs_ = 0;
};

// The weights behind the last step enqueued, parameter by parameter: as they are updated where this rank has all of
// those, else as the model reads them. Blocks the host.
inline std::vector<float> weights_of(launch::Trainer& trainer, Device& device) {
  const Tensor& read = trainer.whole_weights();
  const Tensor weights = trainer.parameters().replicated() ? trainer.parameters().owned().front().weights : read;
  Arena arena("weights for the test", MemoryKind::kHost);
  const Tensor copied = Tensor::reserve(arena, weights.dtype(), {weights.elems()});
  arena.allocate(device);
  trainer.compute().copy({"weights to the test"}, copied, weights);
  trainer.compute().synchronize();
  std::vector<float> values;
  for (const OwnedRange& range : trainer.parameters().layout().owned()) {
    const Tensor part = copied.flat(range.flat_begin_elems, range.size_elems);
    if (part.dtype() == DType::kBF16) {
      for (const BFloat16 value : host_span<BFloat16>(part)) values.push_back(to_float(value));
    } else {
      values.insert(values.end(), host_span<float>(part).begin(), host_span<float>(part).end());
    }
  }
  return values;
}

// One rank of `config`, with its communicator and control.
inline RankOutcome run_rank(const launch::Config& config, comm::Communicator& communicator, comm::Control& control,
                            RankSetup setup) {
  PosixFiles posix;
  Files& files = setup.files != nullptr ? *setup.files : posix;
  RankOutcome outcome;
  launch::Trainer* trainer = nullptr;
  const auto told_first = setup.hooks.before_first_step;
  setup.hooks.before_first_step = [&](launch::Trainer& started) {
    trainer = &started;
    if (told_first) told_first(started);
  };
  const auto told_step = setup.hooks.on_step;
  setup.hooks.on_step = [&](const launch::StepSummary& step) {
    if (told_step) told_step(step);
    outcome.steps.push_back(step);
  };
  const auto told_report = setup.hooks.on_report;
  setup.hooks.on_report = [&](const launch::StepReport& report) {
    if (told_report) told_report(report);
    if (report.step + 1 != config.train.steps) return;
    outcome.weights = weights_of(*trainer, *setup.device);
  };
  outcome.result = launch::train_rank(
      config, {*setup.device, communicator, control, files, Logger(control.rank(), control.size(), setup.log_level)},
      setup.hooks, {"a", "test"});
  return outcome;
}

// All ranks of `config` as threads. `with_rank` makes each rank's setup and calls the run it is given, so that what the
// setup needs lives around the run.
using RunRank = std::function<void(RankSetup)>;
inline std::vector<RankOutcome> run_threads(const launch::Config& config, int ranks,
                                            const std::function<void(int rank, const RunRank& run)>& with_rank) {
  comm::ThreadsWorld world(ranks);
  std::vector<RankOutcome> outcomes(static_cast<std::size_t>(ranks));
  run_ranks(world, [&](int rank) {
    with_rank(rank, [&](RankSetup setup) {
      const auto control = world.make_control(rank);
      const auto communicator =
          launch::make_communicator(*setup.device, *control, world.make_communicator(rank), config.comm);
      outcomes[static_cast<std::size_t>(rank)] = run_rank(config, *communicator, *control, std::move(setup));
    });
  });
  return outcomes;
}

}  // namespace strake::test
