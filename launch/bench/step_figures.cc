#include "launch/bench/step_figures.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "launch/bench/bench_json.h"
#include "launch/report/mfu.h"

namespace strake::launch {
namespace {

using Json = nlohmann::ordered_json;

template <typename Value>
std::optional<Value> optional_at(const Json& json, const char* key) {
  return json.at(key).is_null() ? std::nullopt : std::optional(json.at(key).get<Value>());
}

Json limits_json(const GpuLoad& load) {
  Json out = Json::object();
  for (const auto& [limit, share] : load.limits) out[name_of(limit)] = share;
  return out;
}

GpuLoad gpu_load(const Json& json) {
  GpuLoad load;
  load.samples = json.at("samples");
  load.seconds = json.at("seconds");
  load.mean_power_w = optional_at<double>(json, "power_w");
  load.mean_sm_clock_mhz = optional_at<double>(json, "sm_clock_mhz");
  load.least_sm_clock_mhz = optional_at<int>(json, "least_sm_clock_mhz");
  load.highest_temperature_c = optional_at<int>(json, "highest_temperature_c");
  load.memory_used_bytes = optional_at<std::size_t>(json, "memory_used_bytes");
  for (const auto& [name, share] : json.at("limits").items()) {
    for (const ClockLimit limit : limits_in(~std::uint32_t{0})) {
      if (name_of(limit) == name) load.limits.emplace_back(limit, share.get<double>());
    }
  }
  return load;
}

std::array<double, kStepClasses> class_medians(std::span<const RankMeasurement> ranks) {
  std::array<double, kStepClasses> out{};
  for (std::size_t c = 0; c < kStepClasses; ++c) {
    out[c] = median_of(mean_over_ranks(ranks, [c](const RankStep& step) { return step.class_ms[c]; }));
  }
  return out;
}

double busy_ms(const RankStep& step) { return step.comm_busy_ms; }
double at_end_ms(const RankStep& step) { return step.exposed_at_end_ms; }

Json timeline_json(const CommTimeline& timeline) {
  const auto bucket_json = [](const CommTimeline::Bucket& bucket) {
    return Json{{"bytes", bucket.bytes},          {"final_at_end", bucket.final_at_end},
                {"ready_ms", bucket.ready_ms},    {"begin_ms", bucket.begin_ms},
                {"end_ms", bucket.end_ms},        {"transfer_ms", bucket.transfer_ms},
                {"exposed_ms", bucket.exposed_ms}};
  };
  Json buckets = Json::array();
  for (const CommTimeline::Bucket& bucket : timeline.buckets) buckets.push_back(bucket_json(bucket));
  Json gathers = Json::array();
  for (const CommTimeline::Gather& gather : timeline.gathers) {
    gathers.push_back({{"bytes", gather.bytes},
                       {"ready_ms", gather.ready_ms},
                       {"begin_ms", gather.begin_ms},
                       {"end_ms", gather.end_ms},
                       {"transfer_ms", gather.transfer_ms},
                       {"needed_ms", gather.needed_ms}});
  }
  return {{"backward_begin_ms", timeline.backward_begin_ms},
          {"backward_end_ms", timeline.backward_end_ms},
          {"buckets", buckets},
          {"split_rows", timeline.split_rows.has_value() ? bucket_json(*timeline.split_rows) : Json()},
          {"gathers", gathers}};
}

// 1234567 -> "1,234,567"
std::string grouped(double number) {
  std::string digits = fmt::format("{:.0f}", number);
  for (std::size_t i = digits.size(); i > 3;) digits.insert(i -= 3, 1, ',');
  return digits;
}

std::string row(std::string_view title, const std::string& text) { return fmt::format("  {:<15}{}\n", title, text); }

}  // namespace

std::string RankMeasurement::to_text() const {
  Json values = Json::array();
  for (const RankStep& step : steps) {
    std::vector<double> numbers;
    step.append_to(numbers);
    values.push_back(numbers);
  }
  Json lines = Json::array();
  for (const StepTimeline& timeline : timelines) lines.push_back(timeline.to_values());
  return Json{{"rank", rank},
              {"host", host},
              {"device", device},
              {"steps", values},
              {"timelines", lines},
              {"device_memory_bytes", device_memory_bytes},
              {"memory", launch::to_json(memory)},
              {"gpu", gpu.has_value() ? launch::to_json(*gpu) : Json()}}
      .dump(-1, ' ', false, Json::error_handler_t::replace);
}

RankMeasurement RankMeasurement::from_text(const std::string& text) {
  const Json json = Json::parse(text, nullptr, false);
  STRAKE_CHECK(json.is_object(), "text of to_text: " + text);
  RankMeasurement out;
  out.rank = json.at("rank");
  out.host = json.at("host");
  out.device = json.at("device");
  for (const Json& step : json.at("steps")) out.steps.push_back(RankStep::from(step.get<std::vector<double>>()));
  for (const Json& line : json.at("timelines")) {
    out.timelines.push_back(StepTimeline::from_values(line.get<std::vector<double>>()));
  }
  out.device_memory_bytes = json.at("device_memory_bytes");
  out.memory = memory_table_from(json.at("memory"));
  if (!json.at("gpu").is_null()) out.gpu = gpu_load(json.at("gpu"));
  return out;
}

Json to_json(const GpuLoad& load) {
  return {{"samples", load.samples},
          {"seconds", load.seconds},
          {"power_w", or_null(load.mean_power_w)},
          {"sm_clock_mhz", or_null(load.mean_sm_clock_mhz)},
          {"least_sm_clock_mhz", or_null(load.least_sm_clock_mhz)},
          {"highest_temperature_c", or_null(load.highest_temperature_c)},
          {"memory_used_bytes", or_null(load.memory_used_bytes)},
          {"throttled", load.throttled()},
          {"limits", limits_json(load)}};
}

std::string describe(const GpuLoad& gpu) {
  std::vector<std::string> facts;
  if (gpu.mean_power_w.has_value()) facts.push_back(fmt::format("{:.0f} W", *gpu.mean_power_w));
  if (gpu.mean_sm_clock_mhz.has_value()) {
    facts.push_back(fmt::format("SM clock {:.0f} MHz (least {})", *gpu.mean_sm_clock_mhz, *gpu.least_sm_clock_mhz));
  }
  if (gpu.highest_temperature_c.has_value()) facts.push_back(fmt::format("{} C", *gpu.highest_temperature_c));
  if (gpu.memory_used_bytes.has_value()) {
    facts.push_back(fmt::format("{:.2f} GB in use", static_cast<double>(*gpu.memory_used_bytes) / 1e9));
  }
  for (const auto& [limit, share] : gpu.limits) {
    facts.push_back(fmt::format("{}{} in {:.0f} % of {} samples", is_throttle(limit) ? "throttled: " : "",
                                name_of(limit), 100 * share, gpu.samples));
  }
  return fmt::format("{}", fmt::join(facts, ", "));
}

StepFigures figures_of(const StepJob& job, std::vector<RankMeasurement> ranks) {
  const auto measured = static_cast<std::size_t>(job.steps * job.repeats);
  STRAKE_CHECK(!ranks.empty() && measured > 0, "nothing was measured");
  for (const RankMeasurement& rank : ranks) {
    STRAKE_CHECK(rank.steps.size() == measured,
                 fmt::format("rank {} measured {} of {} steps", rank.rank, rank.steps.size(), measured));
    STRAKE_CHECK(rank.timelines.size() == measured, fmt::format("rank {} has steps without a timeline", rank.rank));
  }
  StepFigures out;
  out.job = job;
  const std::vector<double> walls = mean_over_ranks(std::span<const RankMeasurement>(ranks), &RankStep::wall_ms);
  out.step_ms = spread_of(walls);
  for (auto begin = walls.begin(); begin != walls.end(); begin += job.steps) {
    out.repeats_ms.push_back(median_of({begin, begin + job.steps}));
  }
  out.median_ms = median_of(out.repeats_ms);
  out.tokens_per_s = static_cast<double>(job.tokens_per_step) / (out.median_ms / 1e3);
  if (job.peak_flops > 0) {
    out.mfu = mfu(out.tokens_per_s, job.flops_per_token, job.peak_flops, static_cast<int>(ranks.size()));
  }
  out.class_ms = class_medians(ranks);
  out.comm_busy_ms = median_of(mean_over_ranks(std::span<const RankMeasurement>(ranks), busy_ms));
  out.exposed_at_end_ms = median_of(mean_over_ranks(std::span<const RankMeasurement>(ranks), at_end_ms));
  if (ranks.size() > 1 && !job.stub_comm && out.comm_busy_ms > 0) {
    out.comm_hidden_share = std::max(0.0, 1 - out.of(StepClass::kExposedComm) / out.comm_busy_ms);
  }
  std::vector<std::vector<StepTimeline>> timelines;
  for (const RankMeasurement& rank : ranks) timelines.push_back(rank.timelines);
  out.timeline = comm_timeline(timelines, job.comm_bytes);

  std::set<std::string> hosts;
  double power_w = 0;
  bool all_tell = true;
  for (const RankMeasurement& rank : ranks) {
    hosts.insert(rank.host);
    const bool tells = rank.gpu.has_value() && rank.gpu->mean_power_w.has_value();
    all_tell = all_tell && tells;
    if (tells) power_w += *rank.gpu->mean_power_w;
    if (rank.gpu.has_value() && rank.gpu->throttled()) out.throttled = true;
  }
  out.hosts = static_cast<std::int64_t>(hosts.size());
  if (all_tell) {
    out.power_w = power_w;
    out.energy_per_token_j = power_w / out.tokens_per_s;
  }
  out.ranks = std::move(ranks);
  return out;
}

Json to_json(const StepFigures& figures) {
  const StepJob& job = figures.job;
  const Spread& step = figures.step_ms;
  Json out;
  out["warmup"] = job.warmup;
  out["steps"] = job.steps;
  out["repeats"] = job.repeats;
  out["stub_comm"] = job.stub_comm;
  out["tokens_per_step"] = job.tokens_per_step;
  out["step_ms"] = {{"median", figures.median_ms},
                    {"p10", step.p10},
                    {"p90", step.p90},
                    {"low", step.low},
                    {"high", step.high},
                    {"mean", step.mean},
                    {"repeats", figures.repeats_ms}};
  out["tokens_per_s"] = figures.tokens_per_s;
  out["tokens_per_s_per_rank"] = figures.tokens_per_s / static_cast<double>(figures.ranks.size());
  out["mfu"] = or_null(figures.mfu);
  out["mfu_counts"] = mfu_convention();
  out["mfu_of"] = job.peak_name;
  out["model_flops_per_token"] = job.flops_per_token;
  out["peak_flops_per_rank"] = job.peak_flops > 0 ? Json(job.peak_flops) : Json();
  out["breakdown_ms"] = classes_json(figures.class_ms);
  out["comm"] = {{"exposed_ms", figures.of(StepClass::kExposedComm)},
                 {"exposed_at_end_ms", figures.exposed_at_end_ms},
                 {"busy_ms", figures.comm_busy_ms},
                 {"hidden_share", or_null(figures.comm_hidden_share)},
                 {"buckets", job.comm_bytes.buckets.size()},
                 {"bytes", job.comm_bytes.reduced()},
                 {"bytes_at_end", job.comm_bytes.at_end()},
                 {"timeline", timeline_json(figures.timeline)}};
  out["power_w"] = or_null(figures.power_w);
  out["energy_per_token_j"] = or_null(figures.energy_per_token_j);
  out["throttled"] = figures.throttled;
  out["hosts"] = figures.hosts;
  out["ranks"] = Json::array();
  for (const RankMeasurement& rank : figures.ranks) {
    const std::span<const RankMeasurement> alone(&rank, 1);
    out["ranks"].push_back({{"rank", rank.rank},
                            {"host", rank.host},
                            {"device", rank.device},
                            {"step_ms", median_of(mean_over_ranks(alone, &RankStep::wall_ms))},
                            {"breakdown_ms", classes_json(class_medians(alone))},
                            {"comm_busy_ms", median_of(mean_over_ranks(alone, busy_ms))},
                            {"device_memory_bytes", rank.device_memory_bytes},
                            {"memory", to_json(rank.memory)},
                            {"gpu", rank.gpu.has_value() ? to_json(*rank.gpu) : Json()}});
  }
  return out;
}

std::string table(const StepFigures& figures) {
  const StepJob& job = figures.job;
  const auto [least, most] = std::minmax_element(figures.repeats_ms.begin(), figures.repeats_ms.end());
  const auto ranks = static_cast<double>(figures.ranks.size());
  std::string out = row(
      "step",
      fmt::format("{:.3f} ms, median of {} x {} steps; {:.3f} .. {:.3f} (p10 .. p90), {:.3f} .. {:.3f} between "
                  "repeats",
                  figures.median_ms, job.repeats, job.steps, figures.step_ms.p10, figures.step_ms.p90, *least, *most));
  if (job.stub_comm) {
    out += row("** stubbed **",
               "nothing travelled between the ranks: the times of a step if communication were free, and no "
               "training");
  }
  out += row("tokens/s",
             fmt::format("{}, {} a rank; {} tokens a step{}", grouped(figures.tokens_per_s),
                         grouped(figures.tokens_per_s / ranks), grouped(static_cast<double>(job.tokens_per_step)),
                         figures.throttled ? "  ** throttled, see below **" : ""));
  out += row("MFU", figures.mfu.has_value() ? fmt::format("{:.1f} % of {};\n{:17}counts {}", 100 * *figures.mfu,
                                                          job.peak_name, "", mfu_convention())
                                            : "not known: no rate for this device");

  // Classes that took time, longest first.
  std::vector<StepClass> classes;
  for (std::size_t c = 0; c < kStepClasses; ++c) classes.push_back(static_cast<StepClass>(c));
  std::sort(classes.begin(), classes.end(), [&](StepClass a, StepClass b) { return figures.of(a) > figures.of(b); });
  std::string parts;
  for (const StepClass step_class : classes) {
    if (figures.of(step_class) < 0.0005) continue;
    parts += fmt::format("{}{} {:.3f}", parts.empty() ? "" : ", ", name_of(step_class), figures.of(step_class));
  }
  out += row("breakdown", parts + " ms (medians)");
  if (figures.ranks.size() > 1) {
    for (const RankMeasurement& rank : figures.ranks) {
      const std::span<const RankMeasurement> alone(&rank, 1);
      const auto class_ms = class_medians(alone);
      const auto of = [&](StepClass step_class) { return class_ms[static_cast<std::size_t>(step_class)]; };
      out += row(fmt::format("  rank {}", rank.rank),
                 fmt::format("forward {:.3f}, backward {:.3f}, optimizer {:.3f}, exposed_comm {:.3f}, host_gap {:.3f}",
                             of(StepClass::kForward), of(StepClass::kBackward), of(StepClass::kOptimizer),
                             of(StepClass::kExposedComm), of(StepClass::kHostGap)));
    }
    out += row("communication",
               fmt::format("{:.3f} ms a step busy, {}; {} buckets, {:.1f} MB", figures.comm_busy_ms,
                           figures.comm_hidden_share.has_value()
                               ? fmt::format("{:.1f} % of it hidden", 100 * *figures.comm_hidden_share)
                               : "none to hide",
                           job.comm_bytes.buckets.size(), static_cast<double>(job.comm_bytes.reduced()) / 1e6));
    out += row("", fmt::format("exposed {:.3f} ms: {:.3f} by structure (final when backward ends: {:.1f} MB)",
                               figures.of(StepClass::kExposedComm), figures.exposed_at_end_ms,
                               static_cast<double>(job.comm_bytes.at_end()) / 1e6));
  }

  std::size_t memory_bytes = 0;
  for (const RankMeasurement& rank : figures.ranks) memory_bytes = std::max(memory_bytes, rank.device_memory_bytes);
  out += row("device memory", fmt::format("{:.2f} GB taken by a rank", static_cast<double>(memory_bytes) / 1e9));
  if (figures.power_w.has_value()) {
    out += row("power", fmt::format("{:.0f} W over {} GPU{}, {:.3f} mJ a token", *figures.power_w, figures.ranks.size(),
                                    figures.ranks.size() == 1 ? "" : "s", 1e3 * *figures.energy_per_token_j));
  }
  for (const RankMeasurement& rank : figures.ranks) {
    if (!rank.gpu.has_value()) continue;
    out += row(fmt::format("  GPU of rank {}", rank.rank), describe(*rank.gpu));
  }
  out.pop_back();
  return out;
}

}  // namespace strake::launch
