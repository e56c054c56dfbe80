#include "launch/bench/kernel_figures.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <utility>

#include "launch/bench/bench_json.h"
#include "runtime/base/check.h"
#include "runtime/telemetry/spread.h"

namespace strake::launch {
namespace {

using Json = nlohmann::ordered_json;
using Operand = DeclaredOperation::Operand;

double elems_of(const Operand& operand) {
  double elems = 1;
  for (const std::int64_t size : operand.sizes) elems *= static_cast<double>(size);
  return elems;
}

// Of a matrix product the size that is summed over; none: it is not one.
std::optional<std::int64_t> inner_size(const DeclaredOperation& operation) {
  if (operation.flops <= 0 || operation.writes.empty() || operation.reads.size() < 2) return std::nullopt;
  const Operand &result = operation.writes[0], &left = operation.reads[0], &right = operation.reads[1];
  for (const Operand* operand : {&result, &left, &right}) {
    if (operand->sizes.size() != 2) return std::nullopt;
  }
  const double inner = operation.flops / (2 * elems_of(result));
  for (const std::int64_t size : left.sizes) {
    if (static_cast<double>(size) == inner) return size;
  }
  return std::nullopt;
}

std::string listed(const std::vector<Operand>& operands) {
  std::string out;
  for (const Operand& operand : operands) {
    out += fmt::format("{}{}[{}]", out.empty() ? "" : ", ", name_of(operand.dtype), fmt::join(operand.sizes, ", "));
  }
  return out;
}

void add_once(std::vector<std::string>& names, std::string name) {
  if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(std::move(name));
}

std::vector<double> walls_of(std::span<const RankStep> steps) {
  std::vector<double> out;
  for (const RankStep& step : steps) out.push_back(step.wall_ms);
  return out;
}

double time_ms(double amount, double per_s) { return per_s > 0 ? 1e3 * amount / per_s : 0; }

KernelRow::Above above_floor(const KernelRow& row, const DeviceRates& rates) {
  if (row.step_ms >= row.floor_ms) return KernelRow::Above::kNone;
  const auto faster_than = [&](bool measured) {
    return measured ? KernelRow::Above::kByMeasuredRate : KernelRow::Above::kByMistake;
  };
  if (row.step_ms < time_ms(row.flops, rates.flops)) return faster_than(rates.flops_are_measured);
  // What a cache held when the operation began, and what it still holds of the results when it has ended.
  const double held_bytes = 2 * static_cast<double>(rates.memory.cache_bytes) * static_cast<double>(row.calls);
  if (row.step_ms < time_ms(row.bytes - held_bytes, rates.memory.peak_bytes_per_s))
    return faster_than(rates.memory.peak_is_copied());
  return KernelRow::Above::kByCache;
}

void fill_in_floor(KernelRow& row, const DeviceRates& rates) {
  const double flops_ms = time_ms(row.flops, rates.flops), bytes_ms = time_ms(row.bytes, rates.memory.peak_bytes_per_s);
  row.bound_by_flops = flops_ms > bytes_ms;
  row.floor_ms = std::max(flops_ms, bytes_ms);
  row.above_floor = above_floor(row, rates);
}

double covered_share(const KernelJob& job, const TimedSteps& steps) {
  std::vector<double> shares;
  for (std::size_t i = 0; i < job.timed.size(); ++i) {
    double inside_ms = 0, classes_ms = 0;
    for (const double time_ms : steps.times_ms[i]) inside_ms += time_ms;
    for (const StepClass each : {StepClass::kForward, StepClass::kBackward, StepClass::kOptimizer}) {
      classes_ms += job.timed[i].of(each);
    }
    shares.push_back(classes_ms > 0 ? inside_ms / classes_ms : 0);
  }
  return median_of(std::move(shares));
}

Json above_json(KernelRow::Above above) {
  switch (above) {
    case KernelRow::Above::kNone:
      return nullptr;
    case KernelRow::Above::kByCache:
      return "cache";
    case KernelRow::Above::kByMeasuredRate:
      return "rate";
    case KernelRow::Above::kByMistake:
      return "error";
  }
  return nullptr;
}

// Of three digits or more.
std::string number(const std::optional<double>& value) {
  if (!value.has_value()) return "";
  return fmt::format("{:.{}f}", *value, *value < 10 ? 3 : *value < 1000 ? 1 : 0);
}

char letter_of(KernelRow::Above above) {
  switch (above) {
    case KernelRow::Above::kNone:
      return ' ';
    case KernelRow::Above::kByCache:
      return 'c';
    case KernelRow::Above::kByMeasuredRate:
      return 'r';
    case KernelRow::Above::kByMistake:
      return '!';
  }
  return ' ';
}

std::string labelled(std::string_view title, const std::string& text) {
  return fmt::format("  {:<15}{}\n", title, text);
}

// The first few.
std::string places_text(const std::vector<std::string>& places) {
  constexpr std::size_t kShown = 3;
  const std::size_t shown = std::min(kShown, places.size());
  std::string out = fmt::format("{}", fmt::join(places.begin(), places.begin() + static_cast<long>(shown), ", "));
  if (places.size() > shown) out += fmt::format(" and {} more", places.size() - shown);
  return out;
}

}  // namespace

std::string shape_of(const DeclaredOperation& operation) {
  if (const std::optional<std::int64_t> inner = inner_size(operation); inner.has_value()) {
    const Operand& result = operation.writes[0];
    return fmt::format("{} {}x{}x{}", name_of(operation.reads[0].dtype), result.sizes[0], result.sizes[1], *inner);
  }
  const Operand* largest = nullptr;
  for (const std::vector<Operand>* operands : {&operation.writes, &operation.reads}) {
    for (const Operand& operand : *operands) {
      if (largest == nullptr || elems_of(operand) > elems_of(*largest)) largest = &operand;
    }
  }
  if (largest == nullptr) return "";
  return fmt::format("{} {}", name_of(largest->dtype), fmt::join(largest->sizes, "x"));
}

std::string operands_of(const DeclaredOperation& operation) {
  return fmt::format("{} <- {}", listed(operation.writes), listed(operation.reads));
}

std::string place_of(const std::string& name) {
  std::string out;
  for (const char c : name) {
    if (std::isdigit(static_cast<unsigned char>(c)) == 0) {
      out += c;
    } else if (out.empty() || out.back() != '*') {
      out += '*';
    }
  }
  return out;
}

std::optional<double> KernelRow::tflops() const {
  return flops > 0 && step_ms > 0 ? std::optional(flops / step_ms / 1e9) : std::nullopt;
}
std::optional<double> KernelRow::gb_per_s() const {
  return bytes > 0 && step_ms > 0 ? std::optional(bytes / step_ms / 1e6) : std::nullopt;
}
std::optional<double> KernelRow::floor_share() const {
  return floor_ms > 0 && step_ms > 0 ? std::optional(floor_ms / step_ms) : std::nullopt;
}

KernelFigures figures_of(KernelJob job, const TimedSteps& steps) {
  STRAKE_CHECK(!job.before.empty() && job.before.size() == job.timed.size() && job.after.size() == job.timed.size() &&
                   steps.times_ms.size() == job.timed.size(),
               "nothing was measured, or not alike");
  KernelFigures out;
  out.mark_us = 1e3 * steps.mark_ms;
  std::vector<RankStep> as_they_are = job.before;
  as_they_are.insert(as_they_are.end(), job.after.begin(), job.after.end());
  out.step_ms = median_of(walls_of(as_they_are));
  out.before_ms = median_of(walls_of(job.before));
  out.timed_ms = median_of(walls_of(job.timed));
  out.after_ms = median_of(walls_of(job.after));
  for (std::size_t c = 0; c < kStepClasses; ++c) {
    std::vector<double> times_ms;
    for (const RankStep& step : as_they_are) times_ms.push_back(step.class_ms[c]);
    out.class_ms[c] = median_of(std::move(times_ms));
  }

  std::map<std::pair<std::string, std::string>, std::size_t> row_of;
  for (std::size_t i = 0; i < steps.operations.size(); ++i) {
    const DeclaredOperation& operation = steps.operations[i];
    std::vector<double> times_ms;
    for (const std::vector<double>& step : steps.times_ms) times_ms.push_back(step.at(i));
    const double time_ms = std::max(0.0, median_of(std::move(times_ms)) - steps.mark_ms);
    const auto [place, is_new] = row_of.emplace(std::pair(operation.kind, operands_of(operation)), out.rows.size());
    if (is_new) {
      KernelRow& added = out.rows.emplace_back();
      added.operation = operation.kind;
      added.shape = shape_of(operation);
      added.operands = operands_of(operation);
    }
    KernelRow& row = out.rows[place->second];
    ++row.calls;
    row.step_ms += time_ms;
    row.flops += operation.flops;
    row.bytes += operation.bytes;
    add_once(row.places, place_of(operation.name));
    add_once(row.phases, std::string(name_of(operation.phase)));
    out.phase_ms[std::string(name_of(operation.phase))] += time_ms;
  }
  for (KernelRow& row : out.rows) {
    fill_in_floor(row, job.rates);
    row.step_share = out.step_ms > 0 ? row.step_ms / out.step_ms : 0;
    out.operations_ms += row.step_ms;
    out.floor_ms += row.floor_ms;
  }
  std::stable_sort(out.rows.begin(), out.rows.end(),
                   [](const KernelRow& a, const KernelRow& b) { return a.step_ms > b.step_ms; });
  out.covered_share = covered_share(job, steps);
  out.job = std::move(job);
  return out;
}

Json to_json(const KernelFigures& figures) {
  const KernelJob& job = figures.job;
  Json out;
  out["warmup"] = job.warmup;
  out["steps"] = job.timed.size();
  out["ranks"] = job.ranks;
  out["device"] = job.device;
  const MemoryRates& memory = job.rates.memory;
  out["rates"] = {{"flops", job.rates.flops > 0 ? Json(job.rates.flops) : Json()},
                  {"flops_of", job.rates.flops_name},
                  {"memory_bytes_per_s", memory.peak_bytes_per_s},
                  {"copied_bytes_per_s", memory.copied_bytes_per_s},
                  {"cache_bytes", memory.cache_bytes > 0 ? Json(memory.cache_bytes) : Json()}};
  out["step_ms"] = {{"median", figures.step_ms},
                    {"before", figures.before_ms},
                    {"after", figures.after_ms},
                    {"timed", figures.timed_ms}};
  out["breakdown_ms"] = classes_json(figures.class_ms);
  out["operations_ms"] = figures.operations_ms;
  out["operations_share"] = figures.operations_ms / figures.step_ms;
  out["floor_ms"] = figures.floor_ms;
  out["phases_ms"] = figures.phase_ms;
  out["covered_share"] = figures.covered_share;
  out["mark_us"] = figures.mark_us;
  out["operations"] = Json::array();
  for (const KernelRow& row : figures.rows) {
    const auto calls = static_cast<double>(row.calls);
    out["operations"].push_back({{"operation", row.operation},
                                 {"shape", row.shape},
                                 {"operands", row.operands},
                                 {"places", row.places},
                                 {"phases", row.phases},
                                 {"calls", row.calls},
                                 {"us", row.call_us()},
                                 {"step_ms", row.step_ms},
                                 {"step_share", row.step_share},
                                 {"flops", row.flops / calls},
                                 {"bytes", row.bytes / calls},
                                 {"tflops", or_null(row.tflops())},
                                 {"gb_per_s", or_null(row.gb_per_s())},
                                 {"floor_us", 1e3 * row.floor_ms / calls},
                                 {"bound_by", row.bound_by_flops ? "flops" : "bytes"},
                                 {"floor_share", or_null(row.floor_share())},
                                 {"above_floor", above_json(row.above_floor)}});
  }
  return out;
}

std::string table(const KernelFigures& figures) {
  const KernelJob& job = figures.job;
  std::size_t operation_width = 9, shape_width = 5;
  for (const KernelRow& row : figures.rows) {
    operation_width = std::max(operation_width, row.operation.size());
    shape_width = std::max(shape_width, row.shape.size());
  }
  std::string out =
      fmt::format("  {:<{}}  {:<{}} {:>6} {:>10} {:>8} {:>8} {:>7}  {:>9} {:>6}  {}\n", "operation", operation_width,
                  "shape", shape_width, "calls", "us", "TFLOP/s", "GB/s", "floor %", "step ms", "step %", "where");
  std::set<KernelRow::Above> met;
  for (const KernelRow& row : figures.rows) {
    met.insert(row.above_floor);
    const std::optional<double> share = row.floor_share();
    out += fmt::format("  {:<{}}  {:<{}} {:>6} {:>10.2f} {:>8} {:>8} {:>7}{} {:>9.3f} {:>6.2f}  {}\n", row.operation,
                       operation_width, row.shape, shape_width, row.calls, row.call_us(), number(row.tflops()),
                       number(row.gb_per_s()), share.has_value() ? fmt::format("{:.1f}", 100 * *share) : "",
                       letter_of(row.above_floor), row.step_ms, 100 * row.step_share, places_text(row.places));
  }
  if (met.contains(KernelRow::Above::kByCache))
    out += labelled("c", "above the floor: a part of the operands came out of a cache");
  if (met.contains(KernelRow::Above::kByMeasuredRate))
    out += labelled("r", "above the floor: faster than what the rate was measured with");
  if (met.contains(KernelRow::Above::kByMistake)) {
    out += labelled("! ** error **",
                    "faster than the hard floor: the measurement, the cost that the operation declares, or the rate is "
                    "wrong");
  }
  out += labelled("sum", fmt::format("{:.3f} ms, {:.1f} % of a step; floor {:.3f} ms", figures.operations_ms,
                                     100 * figures.operations_ms / figures.step_ms, figures.floor_ms));
  out += labelled(
      "step", fmt::format("{:.3f} ms, median of 2 x {} steps as they are: {:.3f} before, {:.3f} after; {:.3f} "
                          "with every operation timed",
                          figures.step_ms, job.timed.size(), figures.before_ms, figures.after_ms, figures.timed_ms));
  std::string classes;
  for (const auto& [step_class, phase] :
       {std::pair(StepClass::kForward, Phase::kForward), std::pair(StepClass::kBackward, Phase::kBackward),
        std::pair(StepClass::kOptimizer, Phase::kOptimizer)}) {
    const auto found = figures.phase_ms.find(std::string(name_of(phase)));
    classes += fmt::format("{}{} {:.3f} of {:.3f}", classes.empty() ? "" : ", ", name_of(step_class),
                           found == figures.phase_ms.end() ? 0 : found->second,
                           figures.class_ms[static_cast<std::size_t>(step_class)]);
  }
  out += labelled("operations", classes + " ms");
  out +=
      labelled("timing", fmt::format("{:.2f} us a mark, left out of every time; operations cover {:.1f} % of forward, "
                                     "backward and optimizer of the timed steps",
                                     figures.mark_us, 100 * figures.covered_share));
  const MemoryRates& memory = job.rates.memory;
  out +=
      labelled("floor of", fmt::format("{}; memory {:.0f} GB/s, a copy {:.0f} GB/s; cache {:.0f} MB",
                                       job.rates.flops_name, memory.peak_bytes_per_s / 1e9,
                                       memory.copied_bytes_per_s / 1e9, static_cast<double>(memory.cache_bytes) / 1e6));
  out.pop_back();
  return out;
}

}  // namespace strake::launch
