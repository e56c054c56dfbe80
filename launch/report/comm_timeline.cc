#include "launch/report/comm_timeline.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <numeric>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/telemetry/spread.h"

namespace strake::launch {
namespace {

using Ranks = std::span<const std::vector<StepTimeline>>;

double timeline_ms(Nanoseconds time) { return std::chrono::duration<double, std::milli>(time).count(); }

// The median over steps of what `choose` makes of the ranks' `of`.
template <typename Choose, typename Number>
double median_step(Ranks ranks, double begin, Choose choose, Number of) {
  std::vector<double> steps(ranks.front().size(), begin);
  for (std::size_t i = 0; i < steps.size(); ++i) {
    for (const std::vector<StepTimeline>& rank : ranks) steps[i] = choose(steps[i], of(rank[i]));
  }
  return median_of(std::move(steps));
}

template <typename Number>
double latest(Ranks ranks, Number of) {
  return median_step(
      ranks, -std::numeric_limits<double>::infinity(), [](double a, double b) { return std::max(a, b); }, of);
}

template <typename Number>
double least(Ranks ranks, Number of) {
  return median_step(
      ranks, std::numeric_limits<double>::infinity(), [](double a, double b) { return std::min(a, b); }, of);
}

}  // namespace

StepTimeline StepTimeline::of(const StepReport& report) {
  StepTimeline out{.backward_begin_ms = timeline_ms(report.backward.begin),
                   .backward_end_ms = timeline_ms(report.backward.end),
                   .buckets = {},
                   .split_rows = {},
                   .gathers = {}};
  const auto bucket_of = [](const StepReport::BucketSpan& span) {
    return Bucket{
        .ready_ms = timeline_ms(span.ready), .begin_ms = timeline_ms(span.begin), .end_ms = timeline_ms(span.end)};
  };
  for (const StepReport::BucketSpan& bucket : report.buckets) out.buckets.push_back(bucket_of(bucket));
  if (report.split_rows.has_value()) out.split_rows = bucket_of(*report.split_rows);
  for (const StepReport::GatherSpan& gather : report.gathers) {
    out.gathers.push_back({.ready_ms = timeline_ms(gather.ready),
                           .begin_ms = timeline_ms(gather.begin),
                           .end_ms = timeline_ms(gather.end),
                           .needed_ms = timeline_ms(gather.needed)});
  }
  return out;
}

std::vector<double> StepTimeline::exposed_ms() const {
  std::vector<double> out;
  double end_ms = backward_end_ms;
  const auto add = [&](const Bucket& bucket) {
    out.push_back(std::max(0.0, bucket.end_ms - end_ms));
    end_ms = std::max(end_ms, bucket.end_ms);
  };
  for (const Bucket& bucket : buckets) add(bucket);
  if (split_rows.has_value()) add(*split_rows);
  return out;
}

std::vector<double> StepTimeline::to_values() const {
  std::vector<double> values{backward_begin_ms, backward_end_ms, static_cast<double>(buckets.size()),
                             split_rows.has_value() ? 1.0 : 0.0};
  const auto add = [&](const Bucket& bucket) {
    values.insert(values.end(), {bucket.ready_ms, bucket.begin_ms, bucket.end_ms});
  };
  for (const Bucket& bucket : buckets) add(bucket);
  if (split_rows.has_value()) add(*split_rows);
  for (const Gather& gather : gathers) {
    values.insert(values.end(), {gather.ready_ms, gather.begin_ms, gather.end_ms, gather.needed_ms});
  }
  return values;
}

StepTimeline StepTimeline::from_values(std::span<const double> values) {
  constexpr std::size_t kOwn = 4;
  STRAKE_CHECK(values.size() >= kOwn, "values of no timeline");
  const auto spans = static_cast<std::size_t>(values[2] + values[3]);
  const std::size_t gathers_begin = kOwn + 3 * spans;
  STRAKE_CHECK(values.size() >= gathers_begin && (values.size() - gathers_begin) % 4 == 0, "values of no timeline");
  StepTimeline out{
      .backward_begin_ms = values[0], .backward_end_ms = values[1], .buckets = {}, .split_rows = {}, .gathers = {}};
  for (std::size_t i = kOwn; i < gathers_begin; i += 3) {
    out.buckets.push_back({.ready_ms = values[i], .begin_ms = values[i + 1], .end_ms = values[i + 2]});
  }
  if (values[3] != 0) {
    out.split_rows = out.buckets.back();
    out.buckets.pop_back();
  }
  for (std::size_t i = gathers_begin; i < values.size(); i += 4) {
    out.gathers.push_back(
        {.ready_ms = values[i], .begin_ms = values[i + 1], .end_ms = values[i + 2], .needed_ms = values[i + 3]});
  }
  return out;
}

CommBytes CommBytes::of(const Trainer& trainer) {
  const models::Parameters& parameters = trainer.parameters();
  const comm::BucketPlan& plan = trainer.buckets();
  CommBytes out;
  for (const comm::Bucket& bucket : plan.buckets) {
    out.buckets.push_back(plan.bytes(bucket));
    out.final_at_end.push_back(bucket.final_at_end);
  }
  if (parameters.split_rows() != nullptr) out.split_rows = parameters.split_rows()->bytes();
  if (parameters.replicated()) return out;
  const auto weight_bytes = static_cast<std::int64_t>(size_bytes(parameters.compute_weights().dtype()));
  for (const models::OwnedPiece& piece : parameters.owned()) {
    out.gathers.push_back(plan.buckets[piece.bucket].elems() * weight_bytes);
  }
  return out;
}

std::int64_t CommBytes::reduced() const { return std::accumulate(buckets.begin(), buckets.end(), std::int64_t{0}); }

std::int64_t CommBytes::at_end() const {
  std::int64_t sum = split_rows;
  for (std::size_t i = 0; i < buckets.size(); ++i) sum += final_at_end[i] ? buckets[i] : 0;
  return sum;
}

std::string describe_at_end(const Trainer& trainer) {
  std::string out = trainer.buckets().describe_at_end();
  if (const models::SplitRows* rows = trainer.parameters().split_rows(); rows != nullptr) {
    out += fmt::format("{}token rows of all ranks, {:.3f} MiB", out.empty() ? "" : "; ",
                       static_cast<double>(rows->bytes()) / (1 << 20));
  }
  return out;
}

std::vector<double> CommTimeline::alone_ms() const {
  std::vector<double> out;
  for (const Bucket& bucket : buckets) {
    out.push_back(out.empty() ? bucket.transfer_ms : bucket.end_ms - bucket.begin_ms);
  }
  return out;
}

CommTimeline comm_timeline(Ranks ranks, const CommBytes& bytes) {
  using Step = const StepTimeline&;
  CommTimeline out{.backward_begin_ms = latest(ranks, [](Step step) { return step.backward_begin_ms; }),
                   .backward_end_ms = latest(ranks, [](Step step) { return step.backward_end_ms; }),
                   .buckets = {},
                   .split_rows = {},
                   .gathers = {}};
  // `of` finds it in a step; it is the b-th that is exposed.
  const auto bucket_of = [&](std::size_t b, std::int64_t size, bool final_at_end, auto of) {
    return CommTimeline::Bucket{
        .bytes = size,
        .final_at_end = final_at_end,
        .ready_ms = latest(ranks, [&](Step step) { return of(step).ready_ms; }),
        .begin_ms = latest(ranks, [&](Step step) { return of(step).begin_ms; }),
        .end_ms = latest(ranks, [&](Step step) { return of(step).end_ms; }),
        .transfer_ms = least(ranks, [&](Step step) { return of(step).end_ms - of(step).begin_ms; }),
        .exposed_ms = latest(ranks, [&](Step step) { return step.exposed_ms()[b]; })};
  };
  const std::size_t buckets = bytes.buckets.size();
  for (std::size_t b = 0; b < buckets; ++b) {
    out.buckets.push_back(
        bucket_of(b, bytes.buckets[b], bytes.final_at_end[b], [b](Step step) { return step.buckets[b]; }));
  }
  if (bytes.split_rows > 0)
    out.split_rows = bucket_of(buckets, bytes.split_rows, true, [](Step step) { return *step.split_rows; });
  if (bytes.gathers.empty()) return out;
  std::vector<std::vector<StepTimeline>> gathered(ranks.begin(), ranks.end());
  for (std::vector<StepTimeline>& rank : gathered) std::erase_if(rank, [](Step step) { return step.gathers.empty(); });
  if (gathered.front().empty()) return out;
  for (std::size_t g = 0; g < bytes.gathers.size(); ++g) {
    out.gathers.push_back(
        {.bytes = bytes.gathers[g],
         .ready_ms = latest(gathered, [g](Step step) { return step.gathers[g].ready_ms; }),
         .begin_ms = latest(gathered, [g](Step step) { return step.gathers[g].begin_ms; }),
         .end_ms = latest(gathered, [g](Step step) { return step.gathers[g].end_ms; }),
         .transfer_ms = least(gathered, [g](Step step) { return step.gathers[g].end_ms - step.gathers[g].begin_ms; }),
         .needed_ms = latest(gathered, [g](Step step) { return step.gathers[g].needed_ms; })});
  }
  return out;
}

}  // namespace strake::launch
