// Does the prefetch hide a slow loader?
//
// Two ranks in one run, in which the loader is slowed and not slowed in turn, a block of steps each. While it is slow,
// reading the sequences of one step takes 0.8 of a step on each rank (a sleep in every read); the throttle follows
// the step time of the block before. The first steps of a block still live on what was prefetched in the
// block before: they are not counted.
#include <fmt/format.h>

#include <array>

#include "tests/bench/bench_report.h"
#include "tests/bench/training_bed.h"
#include "tests/support/throttled_source.h"

namespace strake::bench {
namespace {

constexpr double kLoaderShare = 0.8;
constexpr std::int64_t kBlockSteps = 24;
constexpr std::int64_t kSkip = 8;  // more than batches are prefetched

int run(const BenchOptions& options) {
  BenchReport report("loader_bench", "does the prefetch hide a loader that takes 0.8 of a step?", options);
  constexpr int kRanks = 2;
  RunSetup setup{.ranks = kRanks};
  launch::Config& config = setup.config;
  config.model.layers = options.smoke ? 1 : 4;
  config.model.channels = options.smoke ? 32 : 128;
  config.model.heads = options.smoke ? 2 : 4;
  config.train.sequence = options.smoke ? 32 : 128;
  config.train.micro_batch = 4;
  config.train.global_batch = kRanks * config.train.micro_batch;
  config.train.steps = 2 * kBlockSteps * options.repeats + kBlockSteps;  // the last block is of no pair
  config.optimizer.warmup_steps = 2;
  config.comm.bucket_mib = 0.5;

  // Blocks 1, 3, 5, ... are throttled.
  const auto throttled = [](std::int64_t block) { return block % 2 == 1; };
  struct Rank {
    test::ThrottledSource* source = nullptr;
    std::vector<double> wall_ms;  // of the steps of the block
    std::vector<double> sleep_ms;
  };
  std::array<Rank, kRanks> ranks;
  setup.wrap_source = [&](int rank, data::TokenSource& source) {
    auto slow = std::make_unique<test::ThrottledSource>(source, std::chrono::nanoseconds(0));
    ranks[static_cast<std::size_t>(rank)].source = slow.get();
    return slow;
  };
  setup.on_report = [&](int rank, const launch::StepReport& step) {
    Rank& self = ranks[static_cast<std::size_t>(rank)];
    self.wall_ms.push_back(milliseconds(step.times.wall));
  };
  setup.before_step = [&](int rank, launch::Trainer&, std::int64_t step) {
    if (step % kBlockSteps != 0) return;
    Rank& self = ranks[static_cast<std::size_t>(rank)];
    std::chrono::nanoseconds delay{0};
    if (throttled(step / kBlockSteps)) {
      // Reports come late: the latest steps of this block are not among them, which does no harm.
      const std::vector<double> block(self.wall_ms.end() - (kBlockSteps - kSkip), self.wall_ms.end());
      self.sleep_ms.push_back(kLoaderShare * median_of(block));
      delay =
          std::chrono::nanoseconds(static_cast<std::int64_t>(self.sleep_ms.back() * 1e6) / config.train.micro_batch);
    }
    self.source->set_delay(delay);
  };
  TrainingBed bed;
  const RankTrace trace = bed.run(setup).front();

  std::vector<double> plain_ms, slowed_ms, cost_percent, wait_ms;
  for (std::int64_t block = 0; block <= 2 * options.repeats; ++block) {
    std::vector<double> walls, waits;
    for (std::int64_t step = block * kBlockSteps + kSkip; step < (block + 1) * kBlockSteps; ++step) {
      const launch::StepReport& done = trace.steps[static_cast<std::size_t>(step)];
      walls.push_back(milliseconds(done.times.wall));
      waits.push_back(milliseconds(done.times.of(StepClass::kDataWait)));
    }
    (throttled(block) ? slowed_ms : plain_ms).push_back(median_of(walls));
    if (throttled(block)) wait_ms.push_back(median_of(waits));
  }
  // Each slowed block lies between two that are not: a drift of the machine cancels.
  for (std::size_t i = 0; i < slowed_ms.size(); ++i) {
    cost_percent.push_back(100 * (slowed_ms[i] / ((plain_ms[i] + plain_ms[i + 1]) / 2) - 1));
  }
  report.say(fmt::format("{} layers, {} channels, {} x {} tokens a rank, {} ranks; medians of {} steps a block, rank 0",
                         config.model.layers, config.model.channels, config.train.micro_batch, config.train.sequence,
                         kRanks, kBlockSteps - kSkip));
  report.measured("step, loader as it is", "ms", plain_ms);
  report.measured("sleep in the reads of a step", "ms", ranks.front().sleep_ms);
  report.measured("step, loader slowed", "ms", slowed_ms);
  report.measured("  its data wait", "ms", wait_ms);
  report.measured("cost", "%", cost_percent);
  const double cost = median_of(cost_percent);
  report.verdict("a loader slowed to 0.8 of a step costs at most 3 %", cost <= 3, fmt::format("{:+.2f} %", cost));
  return report.finish();
}

}  // namespace
}  // namespace strake::bench

int main(int argc, char** argv) {
  return strake::bench::run(strake::bench::parse_options(argc, argv, "A loader that takes 0.8 of a step", 9));
}
