#include "launch/report/breakdown.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <string_view>

#include "launch/report/comm_timeline.h"

namespace strake::launch {
namespace {

struct Column {
  StepClass step_class;
  std::string_view title;  // shorter than the name of the class: the table fits into 80 columns
};
constexpr std::array<Column, kStepClasses> kColumns{{{StepClass::kForward, "fwd"},
                                                     {StepClass::kBackward, "bwd"},
                                                     {StepClass::kOptimizer, "optim"},
                                                     {StepClass::kExposedComm, "exposed"},
                                                     {StepClass::kDataWait, "data"},
                                                     {StepClass::kH2d, "h2d"},
                                                     {StepClass::kHostGap, "host"},
                                                     {StepClass::kCheckpoint, "ckpt"},
                                                     {StepClass::kOther, "other"}}};

// What makes a rank late, in contrast to what makes it wait for a late one.
constexpr std::array<StepClass, 6> kOwnTime{StepClass::kForward,  StepClass::kBackward, StepClass::kOptimizer,
                                            StepClass::kDataWait, StepClass::kH2d,      StepClass::kHostGap};

double own_ms(const RankStep& rank) {
  double sum = 0;
  for (const StepClass step_class : kOwnTime) sum += rank.of(step_class);
  return sum;
}

// As many decimals as six characters hold.
std::string ms_text(double value) {
  const int digits = value < 9.9995 ? 3 : value < 99.995 ? 2 : value < 9999.95 ? 1 : 0;
  return fmt::format("{:.{}f}", value, digits);
}

std::string row(std::string_view title, const RankStep& values) {
  std::string out = fmt::format("{:<8}{:>7}", title, ms_text(values.wall_ms));
  for (const Column& column : kColumns) {
    out +=
        fmt::format("{:>{}}", ms_text(values.of(column.step_class)), std::max<std::size_t>(column.title.size() + 1, 7));
  }
  return out + '\n';
}

template <typename Choose>
RankStep choose_each(const std::vector<RankStep>& ranks, Choose choose) {
  RankStep out = ranks.front();
  for (const RankStep& rank : ranks) {
    out.wall_ms = choose(out.wall_ms, rank.wall_ms);
    out.comm_busy_ms = choose(out.comm_busy_ms, rank.comm_busy_ms);
    out.exposed_at_end_ms = choose(out.exposed_at_end_ms, rank.exposed_at_end_ms);
    for (std::size_t i = 0; i < kStepClasses; ++i) out.class_ms[i] = choose(out.class_ms[i], rank.class_ms[i]);
  }
  return out;
}

RankStep mean_of(const std::vector<RankStep>& ranks) {
  RankStep sum;
  const auto number = static_cast<double>(ranks.size());
  for (const RankStep& rank : ranks) {
    sum.wall_ms += rank.wall_ms / number;
    sum.comm_busy_ms += rank.comm_busy_ms / number;
    sum.exposed_at_end_ms += rank.exposed_at_end_ms / number;
    for (std::size_t i = 0; i < kStepClasses; ++i) sum.class_ms[i] += rank.class_ms[i] / number;
  }
  return sum;
}

}  // namespace

void RankStep::append_to(std::vector<double>& values) const {
  values.push_back(wall_ms);
  values.insert(values.end(), class_ms.begin(), class_ms.end());
  values.push_back(comm_busy_ms);
  values.push_back(exposed_at_end_ms);
}

RankStep RankStep::from(std::span<const double> values) {
  RankStep out;
  out.wall_ms = values[0];
  std::copy_n(values.begin() + 1, kStepClasses, out.class_ms.begin());
  out.comm_busy_ms = values[kStepClasses + 1];
  out.exposed_at_end_ms = values[kStepClasses + 2];
  return out;
}

RankStep rank_step(const StepReport& report) {
  const auto milliseconds = [](Nanoseconds time) { return std::chrono::duration<double, std::milli>(time).count(); };
  RankStep out{.wall_ms = milliseconds(report.times.wall), .comm_busy_ms = milliseconds(report.comm_busy)};
  const std::vector<double> exposed_ms = StepTimeline::of(report).exposed_ms();
  for (std::size_t i = 0; i < exposed_ms.size(); ++i) {
    if (i == report.buckets.size() || report.buckets[i].final_at_end) out.exposed_at_end_ms += exposed_ms[i];
  }
  for (std::size_t i = 0; i < kStepClasses; ++i) out.class_ms[i] = milliseconds(report.times.classes[i]);
  return out;
}

void StepBreakdown::add(std::span<const RankStep> ranks) {
  for (std::size_t i = 0; i < sums_.size(); ++i) {
    sums_[i].wall_ms += ranks[i].wall_ms;
    sums_[i].comm_busy_ms += ranks[i].comm_busy_ms;
    sums_[i].exposed_at_end_ms += ranks[i].exposed_at_end_ms;
    for (std::size_t c = 0; c < kStepClasses; ++c) sums_[i].class_ms[c] += ranks[i].class_ms[c];
  }
  ++steps_;
}

void StepBreakdown::clear() {
  std::fill(sums_.begin(), sums_.end(), RankStep{});
  steps_ = 0;
}

RankStep StepBreakdown::mean(int rank) const {
  RankStep out = sums_[static_cast<std::size_t>(rank)];
  const auto steps = static_cast<double>(std::max<std::int64_t>(steps_, 1));
  out.wall_ms /= steps;
  out.comm_busy_ms /= steps;
  out.exposed_at_end_ms /= steps;
  for (double& value : out.class_ms) value /= steps;
  return out;
}

std::vector<RankStep> StepBreakdown::means() const {
  std::vector<RankStep> ranks;
  for (std::size_t i = 0; i < sums_.size(); ++i) ranks.push_back(mean(static_cast<int>(i)));
  return ranks;
}

RankStep StepBreakdown::mean() const { return mean_of(means()); }

StepBreakdown::Slowest StepBreakdown::slowest() const {
  const std::vector<RankStep> ranks = means();
  const RankStep average = mean_of(ranks);
  const auto slowest = std::max_element(ranks.begin(), ranks.end(),
                                        [](const RankStep& a, const RankStep& b) { return own_ms(a) < own_ms(b); });
  StepClass cause = kOwnTime.front();
  for (const StepClass step_class : kOwnTime) {
    if (slowest->of(step_class) - average.of(step_class) > slowest->of(cause) - average.of(cause)) cause = step_class;
  }
  const double average_ms = own_ms(average);
  return {static_cast<int>(slowest - ranks.begin()), average_ms > 0 ? own_ms(*slowest) / average_ms : 1.0, cause};
}

std::string StepBreakdown::table() const {
  const std::vector<RankStep> ranks = means();
  std::string out = fmt::format("{:<8}{:>7}", "ms/step", "wall");
  for (const Column& column : kColumns) {
    out += fmt::format("{:>{}}", column.title, std::max<std::size_t>(column.title.size() + 1, 7));
  }
  out += '\n';
  for (std::size_t i = 0; i < ranks.size(); ++i) out += row(fmt::format("rank {}", i), ranks[i]);
  const RankStep average = mean_of(ranks);
  if (ranks.size() > 1) {
    out += row("min", choose_each(ranks, [](double a, double b) { return std::min(a, b); }));
    out += row("mean", average);
    out += row("max", choose_each(ranks, [](double a, double b) { return std::max(a, b); }));
  }
  double explained_ms = 0;
  for (const double value : average.class_ms) explained_ms += value;
  const double exposed_ms = average.of(StepClass::kExposedComm);
  if (ranks.size() > 1) {
    out += fmt::format("communication {} ms, {:.1f} % of it hidden; ", ms_text(average.comm_busy_ms),
                       average.comm_busy_ms > 0 ? 100 * std::max(0.0, 1 - exposed_ms / average.comm_busy_ms) : 100.0);
  }
  double unexplained = average.wall_ms > 0 ? 100 * (average.wall_ms - explained_ms) / average.wall_ms : 0.0;
  if (std::abs(unexplained) < 0.0005) unexplained = 0;  // not "-0.000"
  out += fmt::format("unexplained {:+.3f} % of the time", unexplained);
  if (ranks.size() > 1) {
    // Both are means over ranks and steps; a clock may put a little of the structure's part before the wait.
    const double at_end_ms = std::min(average.exposed_at_end_ms, exposed_ms);
    out += fmt::format("\nexposed {} ms: {} by structure (final when backward ends), {} else", ms_text(exposed_ms),
                       ms_text(at_end_ms), ms_text(exposed_ms - at_end_ms));
    const Slowest late = slowest();
    out += fmt::format("\nslowest rank {}: {:.2f}x the mean of ranks, by {}", late.rank, late.factor,
                       name_of(late.step_class));
  }
  return out;
}

}  // namespace strake::launch
