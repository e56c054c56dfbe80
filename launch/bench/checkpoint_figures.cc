#include "launch/bench/checkpoint_figures.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "launch/bench/bench_json.h"
#include "runtime/base/check.h"

namespace strake::launch {
namespace {

using Json = nlohmann::ordered_json;

double wall_ms(const StepMetrics& step) { return std::chrono::duration<double, std::milli>(step.wall).count(); }
double checkpoint_ms(const StepMetrics& step) {
  return std::chrono::duration<double, std::milli>(step.durations[static_cast<std::size_t>(StepClass::kCheckpoint)])
      .count();
}

std::optional<CheckpointMetrics> save_behind(const Metrics& metrics, std::int64_t step) {
  const auto found = std::ranges::find(metrics.checkpoints, step, &CheckpointMetrics::step);
  return found == metrics.checkpoints.end() ? std::nullopt : std::optional(*found);
}

template <typename Number>
Spread spread_over(const std::vector<SaveCost>& costs, Number number) {
  std::vector<double> samples;
  for (const SaveCost& cost : costs) samples.push_back(std::invoke(number, cost));
  return spread_of(std::move(samples));
}

std::optional<double> median_or_none(std::vector<double> samples) {
  return samples.empty() ? std::nullopt : std::optional(median_of(std::move(samples)));
}

CheckpointRow row_of(const CheckpointJob& job, std::span<const CheckpointRun> runs,
                     std::span<const CheckpointRun> without) {
  CheckpointRow row;
  row.strategy = runs.front().strategy;
  row.folder = runs.front().folder;
  std::vector<SaveCost> costs;
  std::vector<double> steps_ms, cold_s, warm_s, rates;
  for (std::size_t repeat = 0; repeat < runs.size(); ++repeat) {
    const CheckpointRun& run = runs[repeat];
    std::optional<double> step_ms = undisturbed_step_ms(job.blocks, run.metrics);
    if (!step_ms.has_value()) step_ms = undisturbed_step_ms(job.blocks, without[repeat].metrics);
    STRAKE_CHECK(step_ms.has_value(), "a run without checkpoints is undisturbed");
    steps_ms.push_back(*step_ms);
    for (const SaveCost& cost : save_costs(job.blocks, run.metrics, *step_ms)) {
      costs.push_back(cost);
      const double writing_s = (cost.durable_ms - cost.snapshot_ms) / 1e3;
      if (writing_s > 0) rates.push_back(static_cast<double>(run.bytes) / writing_s);
    }
    if (run.cold_load_s.has_value()) cold_s.push_back(*run.cold_load_s);
    if (run.warm_load_s.has_value()) warm_s.push_back(*run.warm_load_s);
  }
  row.step_ms = median_of(steps_ms);
  row.cold_load_s = median_or_none(std::move(cold_s));
  row.warm_load_s = median_or_none(std::move(warm_s));
  if (costs.empty()) return row;  // each was left out, since the disk takes no more
  row.stall_ms = spread_over(costs, &SaveCost::stall_ms);
  row.interference_ms = spread_over(costs, &SaveCost::interference_ms);
  std::vector<double> lost;
  for (const SaveCost& cost : costs) lost.push_back(cost.stall_ms + cost.interference_ms);
  row.lost_ms = interval_of(lost);
  row.interference_share = row.interference_ms.median / (static_cast<double>(job.blocks.window()) * row.step_ms);
  row.call_ms = spread_over(costs, &SaveCost::call_ms);
  row.returned_ms = spread_over(costs, &SaveCost::returned_ms);
  row.fence_ms = spread_over(costs, &SaveCost::fence_ms);
  row.waited_ms = spread_over(costs, &SaveCost::waited_ms);
  row.snapshot_ms = spread_over(costs, &SaveCost::snapshot_ms);
  row.durable_ms = spread_over(costs, &SaveCost::durable_ms);
  row.write_bytes_per_s = median_or_none(std::move(rates)).value_or(0);
  return row;
}

Json spread_json(const Spread& spread) {
  return {{"median", spread.median}, {"low", spread.low}, {"high", spread.high}, {"samples", spread.samples}};
}

std::string duration_text(double seconds) {
  if (seconds < 120) return fmt::format("{:.3g} s", seconds);
  if (seconds < 7200) return fmt::format("{:.3g} min", seconds / 60);
  return fmt::format("{:.3g} h", seconds / 3600);
}

std::string seconds_text(const std::optional<double>& seconds) {
  return seconds.has_value() ? fmt::format("{:.3f}", *seconds) : "-";
}

}  // namespace

std::optional<double> undisturbed_step_ms(const CheckpointBlocks& blocks, const Metrics& metrics) {
  std::vector<double> samples;
  double since_save_ms = 0;
  std::optional<CheckpointMetrics> save;  // the newest before the step
  for (const StepMetrics& step : metrics.steps) {
    // The step that a save is behind has the call in it.
    if (step.step % blocks.every == 0) {
      save = save_behind(metrics, step.step);
      since_save_ms = 0;
    }
    const bool in_window = step.step >= blocks.every && step.step % blocks.every < blocks.window();
    const bool durable = !save.has_value() || since_save_ms > save->waited_ms + save->durable_ms;
    if (step.step > blocks.every && !in_window && durable) samples.push_back(wall_ms(step));
    since_save_ms += wall_ms(step);
  }
  return samples.empty() ? std::nullopt : std::optional(median_of(std::move(samples)));
}

std::vector<SaveCost> save_costs(const CheckpointBlocks& blocks, const Metrics& metrics, double undisturbed_ms) {
  std::map<std::int64_t, const StepMetrics*> steps;
  for (const StepMetrics& step : metrics.steps) steps[step.step] = &step;
  std::vector<SaveCost> out;
  const bool without = metrics.checkpoints.empty();
  for (std::int64_t step = blocks.every; step <= blocks.steps(); step += blocks.every) {
    const std::optional<CheckpointMetrics> save = save_behind(metrics, step);
    if (!blocks.counted(step) || (!without && !save.has_value())) continue;
    SaveCost cost;
    double sum_ms = 0;
    for (std::int64_t i = 0; i < blocks.window(); ++i) {
      const auto found = steps.find(step + i);
      STRAKE_CHECK(found != steps.end(), "a step of the bench has no line");
      sum_ms += wall_ms(*found->second) - undisturbed_ms;
      (i == 0 ? cost.call_ms : cost.fence_ms) += checkpoint_ms(*found->second);
    }
    if (save.has_value()) {
      cost.waited_ms = save->waited_ms;
      cost.returned_ms = save->returned_ms;
      cost.snapshot_ms = save->snapshot_ms;
      cost.durable_ms = save->durable_ms;
    }
    cost.stall_ms = cost.waited_ms + cost.call_ms + cost.fence_ms;
    cost.interference_ms = sum_ms - cost.stall_ms;
    out.push_back(cost);
  }
  return out;
}

Interval interval_of(std::span<const double> samples) {
  STRAKE_CHECK(!samples.empty(), "nothing was measured");
  const auto count = static_cast<double>(samples.size());
  Interval interval;
  for (const double sample : samples) interval.mean += sample / count;
  if (samples.size() == 1) return {interval.mean, std::numeric_limits<double>::infinity()};
  double squares = 0;
  for (const double sample : samples) squares += (sample - interval.mean) * (sample - interval.mean);
  const double deviation = std::sqrt(squares / (count - 1));
  const boost::math::students_t distribution(count - 1);
  interval.half = boost::math::quantile(distribution, 0.975) * deviation / std::sqrt(count);
  return interval;
}

CheckpointAdvice advise(double lost_s, double durable_s, double load_s, double restart_s, double mtbf_s) {
  const double lost = std::max(0.0, lost_s);
  // Where a save costs nothing that could be measured, as often as the disk can.
  const double interval = std::max({std::sqrt(2 * lost * mtbf_s), durable_s, 1e-3});
  return {mtbf_s, interval, lost / interval + (interval / 2 + durable_s + restart_s + load_s) / mtbf_s};
}

CheckpointFigures figures_of(const CheckpointJob& job, std::vector<CheckpointRun> runs) {
  const auto repeats = static_cast<std::size_t>(job.repeats);
  STRAKE_CHECK(repeats > 0 && runs.size() % repeats == 0 && !runs.empty() && runs.front().strategy == "none",
               "repeats of each row, that without checkpoints first");
  CheckpointFigures figures;
  figures.job = job;
  const std::span<const CheckpointRun> all(runs);
  for (std::size_t first = 0; first < runs.size(); first += repeats) {
    figures.rows.push_back(row_of(job, all.subspan(first, repeats), all.first(repeats)));
    figures.bytes = std::max(figures.bytes, runs[first].bytes);
    std::vector<CheckpointAdvice>& advice = figures.advice.emplace_back();
    const CheckpointRow& row = figures.rows.back();
    if (row.durable_ms.samples == 0 || row.strategy == "none") continue;
    for (const double mtbf_s : job.mtbf_s) {
      advice.push_back(advise(row.lost_ms.mean / 1e3, row.durable_ms.median / 1e3,
                              row.cold_load_s.value_or(row.warm_load_s.value_or(0)), job.restart_s, mtbf_s));
    }
  }
  return figures;
}

Json to_json(const CheckpointFigures& figures) {
  const CheckpointJob& job = figures.job;
  Json out{{"device", job.device},
           {"ranks", job.ranks},
           {"every", job.blocks.every},
           {"saves", job.blocks.saves},
           {"repeats", job.repeats},
           {"window", job.blocks.window()},
           {"checkpoint_bytes", figures.bytes},
           {"restart_s", job.restart_s}};
  out["rows"] = Json::array();
  for (std::size_t i = 0; i < figures.rows.size(); ++i) {
    const CheckpointRow& row = figures.rows[i];
    Json json{{"strategy", row.strategy}, {"folder", row.folder}, {"undisturbed_step_ms", row.step_ms}};
    json["stall_ms"] = spread_json(row.stall_ms);
    json["interference_ms"] = spread_json(row.interference_ms);
    json["interference_share"] = row.interference_share;
    json["lost_ms"] = {{"mean", row.lost_ms.mean},
                       {"half_95", std::isfinite(row.lost_ms.half) ? Json(row.lost_ms.half) : Json()}};
    json["call_ms"] = spread_json(row.call_ms);
    json["returned_ms"] = spread_json(row.returned_ms);
    json["fence_ms"] = spread_json(row.fence_ms);
    json["waited_ms"] = spread_json(row.waited_ms);
    json["snapshot_ms"] = spread_json(row.snapshot_ms);
    json["durable_ms"] = spread_json(row.durable_ms);
    json["write_bytes_per_s"] = row.write_bytes_per_s;
    json["load_cold_s"] = or_null(row.cold_load_s);
    json["load_warm_s"] = or_null(row.warm_load_s);
    json["advice"] = Json::array();
    for (const CheckpointAdvice& advice : figures.advice[i]) {
      json["advice"].push_back({{"mtbf_s", advice.mtbf_s}, {"interval_s", advice.interval_s}, {"waste", advice.waste}});
    }
    out["rows"].push_back(std::move(json));
  }
  return out;
}

std::string table(const CheckpointFigures& figures) {
  const CheckpointJob& job = figures.job;
  std::string out = fmt::format(
      "  {:.3f} GiB a checkpoint, {} saves {} steps apart, {} repeats in random order; of a save, over {} steps:\n"
      "  {:<9} {:>8} {:>9} {:>9} {:>15} {:>9} {:>9} {:>7} {:>7} {:>7}\n"
      "  {:<9} {:>8} {:>9} {:>9} {:>15} {:>9} {:>9} {:>7} {:>7} {:>7}\n",
      static_cast<double>(figures.bytes) / (1 << 30), job.blocks.saves, job.blocks.every, job.repeats,
      job.blocks.window(), "strategy", "step", "stall", "interf.", "lost, 95 %", "snapshot", "durable", "write", "load",
      "cold", "", "ms", "ms", "ms", "ms", "ms", "ms", "GB/s", "s", "s");
  std::string folder;
  for (const CheckpointRow& row : figures.rows) {
    if (row.folder != folder && row.strategy != "none") out += fmt::format("  in {}\n", folder = row.folder);
    if (row.stall_ms.samples == 0) {
      out += fmt::format("  {:<9} {:>8.2f} every one was left out: the disk takes them more slowly than they come\n",
                         row.strategy, row.step_ms);
      continue;
    }
    const bool none = row.strategy == "none";
    const auto number = [&](double value, const char* form) {
      return none ? std::string("-") : fmt::format(fmt::runtime(form), value);
    };
    out += fmt::format(
        "  {:<9} {:>8.2f} {:>9.2f} {:>9.2f} {:>15} {:>9} {:>9} {:>7} {:>7} {:>7}\n", row.strategy, row.step_ms,
        row.stall_ms.median, row.interference_ms.median,
        std::isfinite(row.lost_ms.half) ? fmt::format("{:.2f} +- {:.2f}", row.lost_ms.mean, row.lost_ms.half)
                                        : fmt::format("{:.2f}", row.lost_ms.mean),
        number(row.snapshot_ms.median, "{:.2f}"), number(row.durable_ms.median, "{:.2f}"),
        number(row.write_bytes_per_s / 1e9, "{:.2f}"), seconds_text(row.warm_load_s), seconds_text(row.cold_load_s));
  }
  out += fmt::format(
      "  keep one every, and what is lost of the time (Young and Daly; a restart takes {} besides loading),\n"
      "  if the machine fails once in\n  {:<9}",
      duration_text(job.restart_s), "");
  for (const double mtbf_s : job.mtbf_s) out += fmt::format(" {:>18}", duration_text(mtbf_s));
  out += '\n';
  folder.clear();
  for (std::size_t i = 0; i < figures.rows.size(); ++i) {
    if (figures.advice[i].empty()) continue;
    if (figures.rows[i].folder != folder) out += fmt::format("  in {}\n", folder = figures.rows[i].folder);
    out += fmt::format("  {:<9}", figures.rows[i].strategy);
    for (const CheckpointAdvice& advice : figures.advice[i]) {
      out += fmt::format(" {:>18}", fmt::format("{} {:.2f} %", duration_text(advice.interval_s), 100 * advice.waste));
    }
    out += '\n';
  }
  out.pop_back();
  return out;
}

}  // namespace strake::launch
