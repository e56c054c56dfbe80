#include "launch/breakdown.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

namespace strake::launch {
namespace {

constexpr std::array<StepClass, kStepClasses> kColumns{
    StepClass::kForward, StepClass::kBackward, StepClass::kOptimizer,  StepClass::kExposedComm, StepClass::kDataWait,
    StepClass::kH2d,     StepClass::kHostGap,  StepClass::kCheckpoint, StepClass::kOther};

// What makes a rank late, in contrast to what makes it wait for a late one.
constexpr std::array<StepClass, 6> kOwnTime{StepClass::kForward,  StepClass::kBackward, StepClass::kOptimizer,
                                            StepClass::kDataWait, StepClass::kH2d,      StepClass::kHostGap};

double own_ms(const RankStep& rank) {
  double sum = 0;
  for (const StepClass step_class : kOwnTime) sum += rank.of(step_class);
  return sum;
}

std::string row(std::string_view title, const RankStep& values) {
  std::string out = fmt::format("  {:<8}{:>10.3f}", title, values.wall_ms);
  for (const StepClass column : kColumns) out += fmt::format("{:>13.3f}", values.of(column));
  return out + '\n';
}

template <typename Choose>
RankStep choose_each(const std::vector<RankStep>& ranks, Choose choose) {
  RankStep out = ranks.front();
  for (const RankStep& rank : ranks) {
    out.wall_ms = choose(out.wall_ms, rank.wall_ms);
    out.comm_busy_ms = choose(out.comm_busy_ms, rank.comm_busy_ms);
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
    for (std::size_t i = 0; i < kStepClasses; ++i) sum.class_ms[i] += rank.class_ms[i] / number;
  }
  return sum;
}

}  // namespace

void RankStep::append_to(std::vector<double>& values) const {
  values.push_back(wall_ms);
  values.insert(values.end(), class_ms.begin(), class_ms.end());
  values.push_back(comm_busy_ms);
}

RankStep RankStep::from(std::span<const double> values) {
  RankStep out;
  out.wall_ms = values[0];
  std::copy_n(values.begin() + 1, kStepClasses, out.class_ms.begin());
  out.comm_busy_ms = values[kStepClasses + 1];
  return out;
}

RankStep rank_step(const StepTimes& times, Nanoseconds comm_busy) {
  const auto milliseconds = [](Nanoseconds time) { return std::chrono::duration<double, std::milli>(time).count(); };
  RankStep out{.wall_ms = milliseconds(times.wall), .comm_busy_ms = milliseconds(comm_busy)};
  for (std::size_t i = 0; i < kStepClasses; ++i) out.class_ms[i] = milliseconds(times.classes[i]);
  return out;
}

void StepBreakdown::add(std::span<const RankStep> ranks) {
  for (std::size_t i = 0; i < sums_.size(); ++i) {
    sums_[i].wall_ms += ranks[i].wall_ms;
    sums_[i].comm_busy_ms += ranks[i].comm_busy_ms;
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
  for (double& value : out.class_ms) value /= steps;
  return out;
}

StepBreakdown::Slowest StepBreakdown::slowest() const {
  std::vector<RankStep> ranks;
  for (std::size_t i = 0; i < sums_.size(); ++i) ranks.push_back(mean(static_cast<int>(i)));
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

std::string StepBreakdown::line() const {
  std::vector<RankStep> ranks;
  for (std::size_t i = 0; i < sums_.size(); ++i) ranks.push_back(mean(static_cast<int>(i)));
  const RankStep m = mean_of(ranks);
  std::string out = fmt::format(
      "{:.1f} ms | fwd {:.1f} bwd {:.1f} opt {:.1f} | exposed {:.1f} | data {:.1f} h2d {:.1f} ckpt {:.1f} host {:.1f} "
      "other {:.1f}",
      m.wall_ms, m.of(StepClass::kForward), m.of(StepClass::kBackward), m.of(StepClass::kOptimizer),
      m.of(StepClass::kExposedComm), m.of(StepClass::kDataWait), m.of(StepClass::kH2d), m.of(StepClass::kCheckpoint),
      m.of(StepClass::kHostGap), m.of(StepClass::kOther));
  if (ranks.size() > 1) {
    const Slowest late = slowest();
    out += fmt::format(" | slow r{} {:.2f}x ({})", late.rank, late.factor, name_of(late.step_class));
  }
  return out;
}

std::string StepBreakdown::table() const {
  std::vector<RankStep> ranks;
  for (std::size_t i = 0; i < sums_.size(); ++i) ranks.push_back(mean(static_cast<int>(i)));
  std::string out = fmt::format("  {:<8}{:>10}", "ms/step", "wall");
  for (const StepClass column : kColumns) out += fmt::format("{:>13}", name_of(column));
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
  out += fmt::format("  communication {:.3f} ms a step, {:.1f} % of it hidden; unexplained {:+.3f} % of the wall time",
                     average.comm_busy_ms,
                     average.comm_busy_ms > 0 ? 100 * std::max(0.0, 1 - exposed_ms / average.comm_busy_ms) : 100.0,
                     average.wall_ms > 0 ? 100 * (average.wall_ms - explained_ms) / average.wall_ms : 0.0);
  if (ranks.size() > 1) {
    const Slowest late = slowest();
    out += fmt::format("\n  slowest rank {}: {:.2f}x the mean of ranks, by {}", late.rank, late.factor,
                       name_of(late.step_class));
  }
  return out;
}

}  // namespace strake::launch
