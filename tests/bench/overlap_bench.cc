// Does reducing gradients during backward hide a slow network?
//
// Two ranks. Each bucket's all-reduce begins late, by a time a byte that adds up to 0.8 of backward over the whole
// gradient: a link that keeps up with backward, but only if it works meanwhile. The delay is a sleep, so it takes no
// core from the computation. Backward is measured without delay, at every repeat anew; then the
// delayed runs with overlap off and on follow each other.
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "tests/bench/bench_report.h"
#include "tests/bench/training_bed.h"
#include "tests/support/delayed_communicator.h"

namespace strake::bench {
namespace {

constexpr double kDelayShare = 0.8;
constexpr std::size_t kSkip = 3;

double median_of_step(const RankTrace& trace, const std::function<double(const launch::StepReport&)>& value) {
  std::vector<double> values;
  for (std::size_t i = kSkip; i < trace.steps.size(); ++i) values.push_back(value(trace.steps[i]));
  return median_of(values);
}

// Where the first bucket begins, from backward's begin, as a share of backward.
double first_bucket(const launch::StepReport& report) {
  return milliseconds(report.buckets.front().begin - report.backward.begin) /
         milliseconds(report.backward.end - report.backward.begin);
}

double hidden_share(const launch::StepReport& report) {
  return 1 - milliseconds(report.times.of(StepClass::kExposedComm)) / milliseconds(report.comm_busy);
}

int run(const BenchOptions& options) {
  BenchReport report("overlap_bench", "does reducing gradients during backward hide a slow network?", options);
  RunSetup setup;
  launch::Config& config = setup.config;
  config.model.layers = options.smoke ? 2 : 8;
  config.model.channels = options.smoke ? 32 : 128;
  config.model.heads = options.smoke ? 2 : 4;
  config.train.sequence = options.smoke ? 32 : 128;
  config.train.micro_batch = 4;
  config.train.global_batch = setup.ranks * config.train.micro_batch;
  config.train.steps = options.smoke ? 6 : 24;
  config.optimizer.warmup_steps = 2;
  config.comm.bucket_mib = options.smoke ? 0.03 : 0.5;
  TrainingBed bed;

  double nanoseconds_per_byte = 0;
  setup.wrap_communicator = [&](int, std::unique_ptr<comm::Communicator> inner) {
    return std::make_unique<test::DelayedCommunicator>(
        std::move(inner), test::CollectiveDelay{.nanoseconds_per_byte = nanoseconds_per_byte});
  };
  const auto run_with = [&](bool overlap, double delay_per_byte) {
    config.comm.overlap = overlap;
    nanoseconds_per_byte = delay_per_byte;
    return bed.run(setup).front();
  };

  std::vector<double> backward_ms, off_ms, on_ms, ratios, undelayed_ms, begins, hidden, exposed_ms, busy_share;
  std::size_t buckets = 0;
  for (int repeat = 0; repeat < options.repeats; ++repeat) {
    const RankTrace undelayed = run_with(false, 0);
    const double backward = median_of(class_ms(undelayed, StepClass::kBackward, kSkip));
    const auto bytes = static_cast<double>(
        std::accumulate(undelayed.bucket_bytes.begin(), undelayed.bucket_bytes.end(), std::int64_t{0}));
    const double delay_per_byte = kDelayShare * backward * 1e6 / bytes;
    const RankTrace off = run_with(false, delay_per_byte);
    const RankTrace on = run_with(true, delay_per_byte);
    buckets = on.bucket_bytes.size();
    backward_ms.push_back(backward);
    undelayed_ms.push_back(median_of(wall_ms(undelayed, kSkip)));
    off_ms.push_back(median_of(wall_ms(off, kSkip)));
    on_ms.push_back(median_of(wall_ms(on, kSkip)));
    ratios.push_back(off_ms.back() / on_ms.back());
    begins.push_back(median_of_step(on, first_bucket));
    hidden.push_back(median_of_step(on, hidden_share));
    exposed_ms.push_back(median_of(class_ms(on, StepClass::kExposedComm, kSkip)));
    busy_share.push_back(median_of_step(off, [](const launch::StepReport& r) { return milliseconds(r.comm_busy); }) /
                         backward);
  }
  report.say(
      fmt::format("{} layers, {} channels, {} x {} tokens a rank, {} ranks, {} buckets; {} steps a run, medians "
                  "of the {} behind warm-up, of rank 0",
                  config.model.layers, config.model.channels, config.train.micro_batch, config.train.sequence,
                  setup.ranks, buckets, config.train.steps, config.train.steps - static_cast<std::int64_t>(kSkip)));
  report.measured("step, no delay, overlap off", "ms", undelayed_ms);
  report.measured("  its backward", "ms", backward_ms);
  report.measured("all-reduces, delayed, as a share of backward", "", busy_share);
  report.measured("step, delayed, overlap off", "ms", off_ms);
  report.measured("step, delayed, overlap on", "ms", on_ms);
  report.measured("off / on", "x", ratios);
  report.measured("overlap on: communication left exposed", "ms", exposed_ms);
  report.measured("overlap on: share of communication hidden", "", hidden);
  report.measured("overlap on: first bucket begins, of backward", "", begins);
  const double ratio = median_of(ratios), begin = median_of(begins);
  report.verdict("overlap on is at least 1.4x faster than off", ratio >= 1.4, fmt::format("{:.3f}x", ratio));
  report.verdict("the first bucket begins before half of backward", begin < 0.5,
                 fmt::format("at {:.1f} % of backward", 100 * begin));
  return report.finish();
}

}  // namespace
}  // namespace strake::bench

int main(int argc, char** argv) {
  return strake::bench::run(strake::bench::parse_options(argc, argv, "Overlap on against off on a slow network", 5));
}
