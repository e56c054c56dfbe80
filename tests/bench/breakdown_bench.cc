// Does the step breakdown name the class and the rank that really lost the time?
//
// Two ranks train a tiny model. 20 ms are put into one place of rank 1 in every step: before its last all-reduce, into
// its reads of tokens, before its copies of batches, before its AdamW, or on its training thread before a step is
// enqueued. What counts is how far that class of that rank grows over the run without. Loading and copying run a step
// ahead on purpose, so the part of a delay that fits behind the rest of the step costs nothing and must not show: the
// model is tiny to keep that part small, and it is printed. The host's delay begins once the device is idle (in its
// baseline too), because a host that is late but ahead of the device costs nothing either. The wall time of the account
// is compared with the host's clock over the whole run.
//
// With --device cuda the ranks have a GPU each, and a delay of a stream is a kernel of one block that waits.
#include <fmt/format.h>

#include <cmath>
#include <numeric>
#include <thread>

#include "tests/bench/bench_report.h"
#include "tests/bench/training_bed.h"
#include "tests/support/throttled_source.h"

namespace strake::bench {
namespace {

using namespace std::chrono_literals;

constexpr auto kInjected = 20ms;
constexpr double kToleranceMs = 2;
constexpr int kLateRank = 1;
constexpr int kRanks = 2;
constexpr std::size_t kSkip = 8;  // batches prefetched before the delay counts, and warm-up

enum class Place { kNone, kComm, kLoader, kH2d, kOptimizer, kHost };
struct Injection {
  Place place;
  const char* name;
  StepClass shows_in;
};
constexpr std::array<Injection, 5> kInjections{{{Place::kComm, "communication", StepClass::kExposedComm},
                                                {Place::kLoader, "loader", StepClass::kDataWait},
                                                {Place::kH2d, "H2D", StepClass::kH2d},
                                                {Place::kOptimizer, "optimizer", StepClass::kOptimizer},
                                                {Place::kHost, "host", StepClass::kHostGap}}};

// Medians over the steps of one run, and the whole run's clocks.
struct RankNumbers {
  std::array<double, kStepClasses> class_ms{};
  double wall_ms = 0;
  double unexplained_percent = 0;  // wall minus classes, the largest of any step
  double clock_percent = 0;        // the host's clock over the run against the account's walls
};

RankNumbers numbers_of(const RankTrace& trace) {
  RankNumbers out;
  for (std::size_t i = 0; i < kStepClasses; ++i) {
    out.class_ms[i] = median_of(class_ms(trace, static_cast<StepClass>(i), kSkip));
  }
  out.wall_ms = median_of(wall_ms(trace, kSkip));
  Nanoseconds walls{0};
  for (const launch::StepReport& step : trace.steps) {
    walls += step.times.wall;
    const double share = milliseconds(step.times.unexplained()) / milliseconds(step.times.wall);
    out.unexplained_percent = std::max(out.unexplained_percent, 100 * std::abs(share));
  }
  out.clock_percent = 100 * (milliseconds(trace.host_time) / milliseconds(walls) - 1);
  return out;
}

std::string row(const std::string& title, const RankNumbers& numbers) {
  std::string out = fmt::format("{:<24}{:>9.3f}", title, numbers.wall_ms);
  for (const double value : numbers.class_ms) out += fmt::format("{:>14.3f}", value);
  return out;
}

std::string header() {
  std::string out = fmt::format("{:<24}{:>9}", "ms a step", "wall");
  for (std::size_t i = 0; i < kStepClasses; ++i) out += fmt::format("{:>14}", name_of(static_cast<StepClass>(i)));
  return out;
}

RankNumbers difference(const RankNumbers& a, const RankNumbers& b) {
  RankNumbers out{.wall_ms = a.wall_ms - b.wall_ms};
  for (std::size_t i = 0; i < kStepClasses; ++i) out.class_ms[i] = a.class_ms[i] - b.class_ms[i];
  return out;
}

// `idle_host`: rank 1's host lets its device run dry before each step.
std::vector<RankNumbers> measure(TrainingBed& bed, RunSetup setup, Place place, bool idle_host) {
  if (place == Place::kLoader) {
    setup.wrap_source = [](int rank, data::TokenSource& source) {
      const auto delay = rank == kLateRank ? kInjected : 0ms;  // one read a step
      return std::make_unique<test::ThrottledSource>(source, delay);
    };
  }
  setup.before_first_step = [place](int rank, launch::Trainer& trainer, test::FaultyDevice& device) {
    if (rank != kLateRank) return;
    const auto delay = [&](const char* stream, std::string operation) {
      device.faults().delays = {{.target = {.stream = stream, .operation = std::move(operation)}, .fixed = kInjected}};
    };
    const std::size_t last_bucket = trainer.buckets().buckets.size() - 1;
    if (place == Place::kComm) delay("comm", fmt::format("bucket {} all-reduce", last_bucket));
    if (place == Place::kH2d) delay("copy-in", "train batch h2d");
    if (place == Place::kOptimizer) delay("compute", "adamw");
  };
  setup.before_step = [place, idle_host](int rank, launch::Trainer& trainer, std::int64_t) {
    if (rank != kLateRank || !idle_host) return;
    trainer.compute().synchronize();
    if (place == Place::kHost) std::this_thread::sleep_for(kInjected);
  };
  std::vector<RankNumbers> out;
  for (const RankTrace& trace : bed.run(setup)) out.push_back(numbers_of(trace));
  return out;
}

int run(const BenchOptions& options) {
  if (const std::string reason = test::gpus_missing(kRanks); options.gpus && !reason.empty()) {
    fmt::print("skipped: {}\n", reason);
    return 0;
  }
  BenchReport report("breakdown_bench", "does the breakdown name the class and the rank that lost 20 ms?", options);
  report.say(options.gpus ? "two ranks, each with a GPU" : "two ranks on the CPU device");
  RunSetup setup{.ranks = kRanks, .gpus = options.gpus};
  launch::Config& config = setup.config;
  const std::int64_t size = options.gpus ? 64 : 16;  // a head that the GPU's attention takes
  config.model = {.layers = 1, .channels = size, .heads = 1};
  config.train.steps = options.smoke ? 12 : 48;
  config.train.global_batch = kRanks;
  config.train.micro_batch = 1;
  config.train.sequence = size;
  config.optimizer.warmup_steps = 2;
  TrainingBed bed;

  std::array<std::vector<double>, kInjections.size()> shown_ms;
  std::vector<double> step_ms, unexplained_percent, clock_percent;
  std::array<std::string, kInjections.size()> tables;
  const auto note = [&](const std::vector<RankNumbers>& ranks) {
    for (const RankNumbers& rank : ranks) {
      unexplained_percent.push_back(rank.unexplained_percent);
      clock_percent.push_back(rank.clock_percent);
    }
  };
  for (int repeat = 0; repeat < options.repeats; ++repeat) {
    const std::vector<RankNumbers> plain = measure(bed, setup, Place::kNone, false);
    const std::vector<RankNumbers> plain_idle = measure(bed, setup, Place::kNone, true);
    step_ms.push_back(plain[kLateRank].wall_ms);
    for (std::size_t i = 0; i < kInjections.size(); ++i) {
      const Injection& injection = kInjections[i];
      const bool idle_host = injection.place == Place::kHost;
      const std::vector<RankNumbers>& before = idle_host ? plain_idle : plain;
      const std::vector<RankNumbers> after = measure(bed, setup, injection.place, idle_host);
      note(after);
      shown_ms[i].push_back(
          difference(after[kLateRank], before[kLateRank]).class_ms[static_cast<std::size_t>(injection.shows_in)]);
      tables[i] =
          fmt::format("20 ms a step into {} of rank {} (last repeat):\n{}", injection.name, kLateRank, header());
      for (std::size_t rank = 0; rank < kRanks; ++rank) {
        tables[i] += '\n' + row(fmt::format("rank {} without", rank), before[rank]);
        tables[i] += '\n' + row(fmt::format("rank {} with", rank), after[rank]);
        tables[i] += '\n' + row(fmt::format("rank {} difference", rank), difference(after[rank], before[rank]));
      }
    }
  }
  for (const std::string& table : tables) report.say(table);
  report.measured("step without: what run-ahead can hide", "ms", step_ms);
  for (std::size_t i = 0; i < kInjections.size(); ++i) {
    report.measured(fmt::format("{}: growth of {}", kInjections[i].name, name_of(kInjections[i].shows_in)), "ms",
                    shown_ms[i]);
  }
  report.measured("wall minus classes, worst step of a run", "%", unexplained_percent);
  report.measured("host's clock against the account, whole run", "%", clock_percent);
  for (std::size_t i = 0; i < kInjections.size(); ++i) {
    const double shown = median_of(shown_ms[i]);
    report.verdict(fmt::format("20 ms in {} of one rank show as 20 +- 2 ms of its {}", kInjections[i].name,
                               name_of(kInjections[i].shows_in)),
                   std::abs(shown - milliseconds(kInjected)) <= kToleranceMs, fmt::format("{:.2f} ms", shown));
  }
  const double by_classes = spread_of(unexplained_percent).high, by_clock = median_of(clock_percent);
  report.verdict("at most 1 % of the time is unexplained", by_classes <= 1 && std::abs(by_clock) <= 1,
                 fmt::format("{:.3f} % by the classes at most, {:.3f} % by the host's clock", by_classes, by_clock));
  return report.finish();
}

}  // namespace
}  // namespace strake::bench

int main(int argc, char** argv) {
  return strake::bench::run(strake::bench::parse_options(argc, argv, "20 ms in one class of one rank show up there", 5,
                                                         /*on_gpus_too=*/true));
}
