#include "launch/bench/kernel_comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "runtime/base/error.h"

namespace strake::launch {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kBenchFormat = "strake-bench-kernels-1";
constexpr std::uint64_t kMostBenchBytes = std::uint64_t{64} << 20;

// Rows of one operation and shape whose other operands differ are added: from one version to the next an operation may
// have learnt to do more at once.
void add(std::vector<KernelTimes::Row>& rows, KernelTimes::Row row) {
  const auto found = std::find_if(rows.begin(), rows.end(), [&](const KernelTimes::Row& each) {
    return each.operation == row.operation && each.shape == row.shape;
  });
  if (found == rows.end()) {
    rows.push_back(std::move(row));
  } else {
    found->calls += row.calls;
    found->step_ms += row.step_ms;
  }
}

double time_at(const Json& json, const char* key) {
  const double value = json.at(key).get<double>();
  if (!std::isfinite(value) || value < 0) throw std::out_of_range(fmt::format("{} is {}", key, value));
  return value;
}

KernelTimes times_in(const Json& json) {
  if (json.at("format") != kBenchFormat) throw std::out_of_range("another format");
  KernelTimes out;
  out.device = json.at("device").get<std::string>();
  out.config_hash = json.at("config_hash").get<std::string>();
  out.step_ms = time_at(json.at("step_ms"), "median");
  out.operations_ms = time_at(json, "operations_ms");
  for (const Json& row : json.at("operations")) {
    add(out.rows, {.operation = row.at("operation").get<std::string>(),
                   .shape = row.at("shape").get<std::string>(),
                   .calls = row.at("calls").get<std::int64_t>(),
                   .step_ms = time_at(row, "step_ms")});
  }
  return out;
}

std::string calls_text(const KernelComparison::Row& row) {
  if (row.calls == row.earlier_calls) return fmt::format("{}", row.calls);
  return fmt::format("{} -> {}", row.earlier_calls, row.calls);
}

std::string ratio_text(const KernelComparison::Row& row) {
  if (row.earlier_calls == 0) return "new";
  if (row.calls == 0) return "gone";
  const std::optional<double> ratio = row.ratio();
  return ratio.has_value() ? fmt::format("{:.3f}", *ratio) : "";
}

}  // namespace

KernelTimes KernelTimes::of(const KernelFigures& figures, const std::string& config_hash) {
  KernelTimes out{.device = figures.job.device,
                  .config_hash = config_hash,
                  .step_ms = figures.step_ms,
                  .operations_ms = figures.operations_ms,
                  .rows = {}};
  for (const KernelRow& row : figures.rows) add(out.rows, {row.operation, row.shape, row.calls, row.step_ms});
  return out;
}

KernelTimes read_kernel_times(Files& files, const std::filesystem::path& path) {
  std::string text;
  try {
    text = read_file(files, path, kMostBenchBytes);
  } catch (const Error& error) {
    throw ConfigError(fmt::format("--against: {}", error.what()));
  }
  try {
    return times_in(Json::parse(text));
  } catch (const std::exception&) {
    throw ConfigError(fmt::format("--against: {} is no output of `strake bench kernels --json` of this version ({})",
                                  path.string(), kBenchFormat));
  }
}

std::optional<double> KernelComparison::Row::ratio() const {
  return earlier_ms > 0 && calls > 0 ? std::optional(ms / earlier_ms) : std::nullopt;
}

KernelComparison compare(std::string against, KernelTimes earlier, KernelTimes now) {
  KernelComparison out{.against = std::move(against), .earlier = std::move(earlier), .now = std::move(now), .rows = {}};
  std::map<std::pair<std::string, std::string>, KernelComparison::Row> rows;
  const auto row_of = [&](const KernelTimes::Row& row) -> KernelComparison::Row& {
    KernelComparison::Row& compared = rows[{row.operation, row.shape}];
    compared.operation = row.operation;
    compared.shape = row.shape;
    return compared;
  };
  for (const KernelTimes::Row& row : out.earlier.rows) {
    KernelComparison::Row& compared = row_of(row);
    compared.earlier_calls = row.calls;
    compared.earlier_ms = row.step_ms;
  }
  for (const KernelTimes::Row& row : out.now.rows) {
    KernelComparison::Row& compared = row_of(row);
    compared.calls = row.calls;
    compared.ms = row.step_ms;
  }
  for (auto& [key, row] : rows) out.rows.push_back(std::move(row));
  std::stable_sort(out.rows.begin(), out.rows.end(),
                   [](const auto& a, const auto& b) { return a.difference_ms() < b.difference_ms(); });
  return out;
}

Json to_json(const KernelComparison& comparison) {
  const KernelTimes &earlier = comparison.earlier, &now = comparison.now;
  Json out{{"against", comparison.against},
           {"same_config", earlier.config_hash == now.config_hash},
           {"same_device", earlier.device == now.device},
           {"earlier_step_ms", earlier.step_ms},
           {"step_ratio", earlier.step_ms > 0 ? Json(now.step_ms / earlier.step_ms) : Json()},
           {"step_difference_ms", now.step_ms - earlier.step_ms},
           {"earlier_operations_ms", earlier.operations_ms},
           {"operations_difference_ms", now.operations_ms - earlier.operations_ms},
           {"operations", Json::array()}};
  for (const KernelComparison::Row& row : comparison.rows) {
    const std::optional<double> ratio = row.ratio();
    out["operations"].push_back({{"operation", row.operation},
                                 {"shape", row.shape},
                                 {"earlier_calls", row.earlier_calls},
                                 {"calls", row.calls},
                                 {"earlier_ms", row.earlier_ms},
                                 {"step_ms", row.ms},
                                 {"ratio", ratio.has_value() ? Json(*ratio) : Json()},
                                 {"difference_ms", row.difference_ms()}});
  }
  return out;
}

std::string table(const KernelComparison& comparison) {
  const KernelTimes &earlier = comparison.earlier, &now = comparison.now;
  std::size_t operation_width = 9, shape_width = 5;
  for (const KernelComparison::Row& row : comparison.rows) {
    operation_width = std::max(operation_width, row.operation.size());
    shape_width = std::max(shape_width, row.shape.size());
  }
  std::string out = fmt::format("against {}", comparison.against);
  if (earlier.device != now.device) out += fmt::format(", of another device ({})", earlier.device);
  if (earlier.config_hash != now.config_hash) out += fmt::format(", of another config (hash {})", earlier.config_hash);
  out += fmt::format("\n  {:<{}}  {:<{}} {:>10} {:>10} {:>10} {:>7} {:>11}\n", "operation", operation_width, "shape",
                     shape_width, "calls", "before ms", "now ms", "ratio", "difference");
  for (const KernelComparison::Row& row : comparison.rows) {
    out += fmt::format("  {:<{}}  {:<{}} {:>10} {:>10.3f} {:>10.3f} {:>7} {:>+11.3f}\n", row.operation, operation_width,
                       row.shape, shape_width, calls_text(row), row.earlier_ms, row.ms, ratio_text(row),
                       row.difference_ms());
  }
  const auto total = [&](const char* name, double before, double after) {
    return fmt::format("  {:<{}} {:>10} {:>10.3f} {:>10.3f} {:>7} {:>+11.3f}\n", name,
                       operation_width + 2 + shape_width, "", before, after,
                       before > 0 ? fmt::format("{:.3f}", after / before) : "", after - before);
  };
  out += total("sum of operations", earlier.operations_ms, now.operations_ms);
  out += total("step as it is", earlier.step_ms, now.step_ms);
  out.pop_back();
  return out;
}

}  // namespace strake::launch
