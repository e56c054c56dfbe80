#include "launch/verify/verify_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "models/recompute.h"

namespace strake::launch {
namespace {

using Json = nlohmann::ordered_json;

std::string plural(std::int64_t number, std::string_view one, std::string_view more = "s") {
  return fmt::format("{} {}{}", number, one, number == 1 ? "" : more);
}

std::string why(const VariantResult& result) {
  if (result.difference.has_value()) return result.difference->describe();
  if (!result.first_reports.empty()) {
    return fmt::format("order checker, rank {}: {}", result.first_reports.front().rank,
                       result.first_reports.front().text);
  }
  return result.problem;
}

Json to_json(const VariantResult& result) {
  Json reports = Json::array();
  for (const VariantResult::Report& report : result.first_reports) {
    reports.push_back({{"rank", report.rank}, {"text", report.text}});
  }
  Json difference;
  if (result.difference.has_value()) {
    difference = {{"step", result.difference->step},
                  {"what", result.difference->what},
                  {"rank", result.difference->rank},
                  {"value", result.difference->value},
                  {"expected", result.difference->expected}};
  }
  const Variant& variant = result.variant;
  return {{"name", variant.name},
          {"verdict", name_of(result.verdict)},
          {"overlap", variant.overlap},
          {"bucket_mib", variant.bucket_mib},
          {"buckets", result.buckets},
          {"shard", models::name_of(variant.shard)},
          {"recompute", variant.recompute.has_value() ? Json(name_of(*variant.recompute)) : Json()},
          {"late_stream", variant.late_stream},
          {"late_host", variant.late_host},
          {"seconds", result.seconds},
          {"reference", result.reference},
          {"difference", difference},
          {"order_reports", result.order_reports},
          {"first_order_reports", reports},
          {"problem", result.problem}};
}

}  // namespace

std::string_view name_of(Verdict verdict) {
  switch (verdict) {
    case Verdict::kReference:
      return "reference";
    case Verdict::kPass:
      return "pass";
    case Verdict::kFail:
      return "FAIL";
    case Verdict::kNotRun:
      return "not run";
  }
  return "";
}

std::int64_t VerifyReport::count(Verdict verdict) const {
  std::int64_t number = 0;
  for (const CellResult& cell : cells) number += std::ranges::count(cell.variants, verdict, &VariantResult::verdict);
  return number;
}

std::string VerifyReport::first_failure() const {
  for (const CellResult& cell : cells) {
    for (const VariantResult& result : cell.variants) {
      if (result.verdict != Verdict::kFail) continue;
      return fmt::format("{}: {}: {}", cell.cell.name(), result.variant.name, why(result));
    }
  }
  return "";
}

std::string heading(const Cell& cell) {
  return fmt::format("{} of {} a rank, {}\n  {:<48} {:>9} {:>9}", plural(cell.accumulation, "micro-batch", "es"),
                     plural(cell.micro_batch, "sequence"), plural(cell.ranks, "rank"), "", "buckets", "seconds");
}

std::string describe(const VariantResult& result) {
  const bool ran = result.verdict != Verdict::kNotRun;
  std::string out =
      fmt::format("  {:<48} {:>9} {:>9}  {}", result.variant.name, ran ? fmt::format("{}", result.buckets) : "",
                  ran ? fmt::format("{:.2f}", result.seconds) : "", name_of(result.verdict));
  if (result.difference.has_value()) {
    out += fmt::format("\n      differs from '{}' first in {}", result.reference, result.difference->describe());
  }
  for (const VariantResult::Report& report : result.first_reports) {
    out += fmt::format("\n      order checker, rank {}: {}", report.rank, report.text);
  }
  const auto more = result.order_reports - static_cast<std::int64_t>(result.first_reports.size());
  if (more > 0) out += fmt::format("\n      order checker: and {} more", more);
  if (!result.problem.empty()) out += fmt::format("\n      {}", result.problem);
  return out;
}

std::string summary(const VerifyReport& report, std::int64_t steps) {
  const std::int64_t failed = report.count(Verdict::kFail), not_run = report.count(Verdict::kNotRun);
  const std::int64_t compared = report.count(Verdict::kPass) + failed;
  std::string out = fmt::format(
      "{} of {} variants equal their reference in every bit of {} losses, gradient norms, weights and moments, and "
      "the order "
      "checker has nothing to report of them",
      compared - failed, compared, steps == 1 ? "1 step's" : fmt::format("{} steps'", steps));
  if (not_run > 0) out += fmt::format("; {} could not be run", not_run);
  return out;
}

Json to_json(const VerifyReport& report) {
  Json cells = Json::array();
  for (const CellResult& cell : report.cells) {
    Json variants = Json::array(), losses = Json::array(), norms = Json::array();
    for (const VariantResult& result : cell.variants) variants.push_back(to_json(result));
    for (const RankRecord::Step& step : cell.steps) {
      losses.push_back(step.loss);
      norms.push_back(step.grad_norm);
    }
    cells.push_back({{"ranks", cell.cell.ranks},
                     {"micro_batch", cell.cell.micro_batch},
                     {"accumulation", cell.cell.accumulation},
                     {"losses", losses},
                     {"gradient_norms", norms},
                     {"variants", variants}});
  }
  return {{"device", report.device},
          {"backend", report.backend},
          {"passed", report.passed()},
          {"equal", report.count(Verdict::kPass)},
          {"failed", report.count(Verdict::kFail)},
          {"not_run", report.count(Verdict::kNotRun)},
          {"cells", cells}};
}

}  // namespace strake::launch
