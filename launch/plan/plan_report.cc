#include "launch/plan/plan_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "launch/plan/gpu_experience.h"
#include "launch/plan/memory_size.h"
#include "launch/report/mfu.h"
#include "launch/report/progress.h"

namespace strake::launch {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kMostShares = 12;  // of the fullest operation, that a person reads

const char* name_of_device(const PlanTarget& target) { return target.kind == DeviceKind::kCuda ? "cuda" : "cpu"; }
bool estimates(const PlanTarget& target) { return target.kind == DeviceKind::kCuda && target.device == nullptr; }

double mib(double bytes) { return bytes / (1 << 20); }

std::string plan_line(std::string_view title, const std::string& text) {
  return fmt::format("{:<13}{}\n", title, text);
}

// "GiB of the device" on GPUs, whose host memory is apart.
std::string memory_name(const PlanTarget& target) {
  return target.kind == DeviceKind::kCuda ? "device memory" : "memory";
}

std::vector<std::int64_t> bucket_bytes(const comm::BucketPlan& buckets) {
  std::vector<std::int64_t> bytes;
  for (const comm::Bucket& bucket : buckets.buckets) bytes.push_back(buckets.bytes(bucket));
  return bytes;
}

std::vector<bool> final_at_end(const comm::BucketPlan& buckets) {
  std::vector<bool> out;
  for (const comm::Bucket& bucket : buckets.buckets) out.push_back(bucket.final_at_end);
  return out;
}

std::string model_lines(const RankPlan& plan) {
  const Job& job = plan.job;
  const Config::Train& train = job.config.train;
  const int ranks = plan.target.ranks;
  std::string out = plan_line(
      "model", fmt::format("{}: {} layers, {} channels, {} parameters ({})", job.config.model.kind, job.shape.layers,
                           job.shape.channels, plan.parameters, count_text(static_cast<double>(plan.parameters))));
  std::string device = name_of_device(plan.target);
  if (estimates(plan.target)) device += ", not here: what the driver and its libraries take is estimated";
  out += plan_line("device", device);
  std::string types = fmt::format("{}, gradients {}", name_of(job.dtype), name_of(job.gradient_dtype));
  if (ranks > 1) types += fmt::format(", summed over ranks in {}", name_of(plan.buckets.wire));
  out += plan_line("types", fmt::format("{}; train.recompute = {}", types, name_of(train.recompute)));
  out += plan_line("batch", fmt::format("{} x {} rank{} x {} accumulated = {} sequences of {} tokens, {} a step",
                                        train.micro_batch, ranks, ranks == 1 ? "" : "s", job.derived.accumulation,
                                        train.global_batch, train.sequence, job.derived.tokens_per_step));
  return out;
}

std::string cost_lines(const RankPlan& plan) {
  std::string out = plan_line(
      "FLOPs", fmt::format("{:.3f} GFLOP a token as MFU counts them", plan.job.shape.model_flops_per_token() / 1e9));
  out += plan_line("", fmt::format("{:.3f} TFLOP a step and rank in matrix products, and {:.3f} TFLOP recomputed",
                                   plan.flops / 1e12, plan.recomputed_flops / 1e12));
  out += plan_line("bytes moved",
                   fmt::format("a step and rank: forward {:.3f} GB, backward {:.3f} GB, optimizer {:.3f} GB;",
                               plan.bytes.forward / 1e9, plan.bytes.backward / 1e9, plan.bytes.optimizer / 1e9));
  out += plan_line("", fmt::format("tokens to the device {:.3f} MB; sent to other ranks {:.3f} GB",
                                   plan.bytes.input / 1e6, plan.bytes.sent / 1e9));
  const std::vector<std::int64_t> bytes = bucket_bytes(plan.buckets);
  const auto [least, most] = std::ranges::minmax(bytes);
  out +=
      plan_line("buckets", fmt::format("{} of {}, {:.2f} to {:.2f} MiB, {:.2f} MiB in all", bytes.size(),
                                       name_of(plan.buckets.wire), mib(static_cast<double>(least)),
                                       mib(static_cast<double>(most)), mib(static_cast<double>(plan.buckets.bytes()))));
  if (plan.target.ranks > 1 && !plan.at_end.empty()) {
    out += plan_line("", "exposed by structure, final when backward ends: " + plan.at_end);
  }
  return out;
}

std::string peak_lines(const RankPlan& plan) {
  std::string out = fmt::format("alive at the fullest operation, '{}': {} of activations\n", plan.fullest_operation,
                                memory_size_text(plan.alive_bytes));
  std::size_t shown_bytes = 0;
  for (std::size_t i = 0; i < std::min(plan.peak.size(), kMostShares); ++i) {
    const PeakShare& share = plan.peak[i];
    out += fmt::format("  {:<22} {:>4} x {:>15} bytes\n", share.name, share.count,
                       share.size_bytes / static_cast<std::size_t>(share.count));
    shown_bytes += share.size_bytes;
  }
  if (plan.peak.size() > kMostShares) {
    out += fmt::format("  and {} more, {} bytes in all\n", plan.peak.size() - kMostShares,
                       plan.alive_bytes - std::min(shown_bytes, plan.alive_bytes));
  }
  return out;
}

std::string fit_line(const PlanReport& report) {
  const std::uint64_t needed_bytes = report.plan.needed_bytes();
  const std::string needs =
      fmt::format("a rank needs {} of {}", memory_size_text(needed_bytes), memory_name(report.plan.target));
  if (report.limit_bytes == 0) return needs + "; --memory 80GiB says what would fit\n";
  const std::string limit = fmt::format("{} ({})", memory_size_text(report.limit_bytes), report.limit_of);
  if (report.fits_as_it_is()) {
    return fmt::format("{}, which fits into {}: {} are left\n", needs, limit,
                       memory_size_text(report.limit_bytes - needed_bytes));
  }
  return fmt::format("{}, which does not fit into {}: {} are missing\n", needs, limit,
                     memory_size_text(needed_bytes - report.limit_bytes));
}

std::string largest_text(const std::optional<std::int64_t>& largest) {
  return !largest.has_value() ? "" : *largest == 0 ? "none" : fmt::format("{}", *largest);
}

std::string fit_table(const PlanReport& report) {
  const bool limited = report.limit_bytes > 0;
  std::string out =
      fmt::format("{:<18} {:>14} {:>11}", "train.recompute", memory_name(report.plan.target), "more FLOPs");
  if (limited) {
    out += fmt::format("   largest train.micro_batch   that divides train.global_batch = {}",
                       report.plan.job.config.train.global_batch);
  }
  out += '\n';
  for (const PolicyFit& fit : report.fits) {
    out += fmt::format("{:<18} {:>14} {:>9.1f} %", name_of(fit.policy), memory_size_text(fit.needed_bytes),
                       100 * fit.more_flops);
    if (limited) {
      out += fmt::format("   {:>25}   {:>12}", largest_text(fit.largest_micro_batch),
                         largest_text(fit.largest_micro_batch_of_a_batch));
    }
    out += '\n';
  }
  return out;
}

Json or_null(const std::optional<std::int64_t>& value) { return value.has_value() ? Json(*value) : Json(); }

}  // namespace

std::string describe(const PlanReport& report) {
  const RankPlan& plan = report.plan;
  std::string out = fmt::format("plan of {}\n", report.config_path) + model_lines(plan) + cost_lines(plan);
  if (!plan.job.derived.note.empty()) out += plan_line("note", plan.job.derived.note);
  out += "\nmemory of a rank\n" + plan.memory.describe() + "\n";
  if (plan.memory.estimated()) out += fmt::format("  estimated by {}\n", gpu_experience_is_from());
  out += "\n" + peak_lines(plan) + "\n" + fit_line(report) + fit_table(report);
  out.pop_back();
  return out;
}

Json to_json(const PlanReport& report) {
  const RankPlan& plan = report.plan;
  const Job& job = plan.job;
  Json peak = Json::array(), fits = Json::array();
  for (const PeakShare& share : plan.peak) {
    peak.push_back({{"name", share.name}, {"count", share.count}, {"bytes", share.size_bytes}});
  }
  for (const PolicyFit& fit : report.fits) {
    fits.push_back({{"recompute", name_of(fit.policy)},
                    {"bytes", fit.needed_bytes},
                    {"more_flops", fit.more_flops},
                    {"fits", report.limit_bytes > 0 ? Json(fit.needed_bytes <= report.limit_bytes) : Json()},
                    {"largest_micro_batch", or_null(fit.largest_micro_batch)},
                    {"largest_micro_batch_of_global_batch", or_null(fit.largest_micro_batch_of_a_batch)}});
  }
  const std::vector<std::int64_t> buckets = bucket_bytes(plan.buckets);
  return {{"format", "strake-plan-1"},
          {"config", Json::parse(config_to_json(job.config))},
          {"device", name_of_device(plan.target)},
          {"device_here", !estimates(plan.target)},
          {"ranks", plan.target.ranks},
          {"parameters", plan.parameters},
          {"dtype", name_of(job.dtype)},
          {"gradient_dtype", name_of(job.gradient_dtype)},
          {"accumulation", job.derived.accumulation},
          {"tokens_per_step", job.derived.tokens_per_step},
          {"model_flops_per_token", job.shape.model_flops_per_token()},
          {"mfu_counts", mfu_convention()},
          {"step",
           {{"flops", plan.flops},
            {"recomputed_flops", plan.recomputed_flops},
            {"forward_bytes", plan.bytes.forward},
            {"backward_bytes", plan.bytes.backward},
            {"optimizer_bytes", plan.bytes.optimizer},
            {"input_bytes", plan.bytes.input},
            {"sent_bytes", plan.bytes.sent}}},
          {"buckets",
           {{"dtype", name_of(plan.buckets.wire)},
            {"bytes", buckets},
            {"final_at_end", final_at_end(plan.buckets)},
            {"split_rows_bytes", plan.split_rows_bytes}}},
          {"memory", to_json(plan.memory)},
          {"estimated_by", plan.memory.estimated() ? Json(gpu_experience_is_from()) : Json()},
          {"fullest", {{"operation", plan.fullest_operation}, {"bytes", plan.alive_bytes}, {"activations", peak}}},
          {"needed_bytes", plan.needed_bytes()},
          {"limit_bytes", report.limit_bytes > 0 ? Json(report.limit_bytes) : Json()},
          {"limit_of", report.limit_bytes > 0 ? Json(report.limit_of) : Json()},
          {"fits", report.limit_bytes > 0 ? Json(report.fits_as_it_is()) : Json()},
          {"policies", fits}};
}

}  // namespace strake::launch
