#include "launch/run/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "runtime/base/error.h"

namespace strake::launch {
namespace {

constexpr std::uint64_t kLargestMetricsBytes = std::uint64_t{4} << 30;
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

double ms_of(std::chrono::nanoseconds duration) { return static_cast<double>(duration.count()) / 1e6; }
std::chrono::nanoseconds from_milliseconds(double value) {
  return std::chrono::nanoseconds(std::isfinite(value) ? std::llround(value * 1e6) : 0);
}

// As many digits as give back the same bits, so that losses of two runs can be compared for equality.
// JSON has no NaN: null stands for it.
std::string real(double value) { return std::isfinite(value) ? fmt::format("{}", value) : "null"; }

bool is_whole_line(std::string_view line) { return line.starts_with('{') && line.ends_with('}'); }

// Length of `text` up to the end of the last whole line. After a power loss a tail may also be zeros.
std::size_t whole_bytes(std::string_view text) {
  std::size_t end = text.rfind('\n') + 1;  // npos + 1 == 0
  while (end > 0) {
    const std::size_t begin = end < 2 ? 0 : text.rfind('\n', end - 2) + 1;
    if (is_whole_line(text.substr(begin, end - 1 - begin))) break;
    end = begin;
  }
  return end;
}

}  // namespace

MetricsFile::MetricsFile(Files& files, const std::filesystem::path& path) {
  if (files.exists(path)) {
    const std::string text = read_file(files, path, kLargestMetricsBytes);
    const std::size_t whole = whole_bytes(text);
    if (whole < text.size()) files.open(path, OpenMode::kUpdate)->truncate(whole);
  }
  file_ = files.open(path, OpenMode::kAppend);
}

void MetricsFile::append(const StepMetrics& m) {
  const auto ms = [&](std::chrono::nanoseconds time) {
    return m.wall.count() == 0 ? std::string("null") : fmt::format("{:.6f}", ms_of(time));
  };
  std::string line = fmt::format(
      R"({{"step": {}, "attempt": {}, "loss": {}, "lr": {}, "grad_norm": {}, "tokens_per_s": {}, "mfu": {}, "step_ms": {})",
      m.step, m.attempt, real(m.loss), real(m.learning_rate), real(m.grad_norm), real(std::round(m.tokens_per_s)),
      real(m.mfu), ms(m.wall));
  for (std::size_t i = 0; i < kStepClasses; ++i) {
    line += fmt::format(R"(, "{}_ms": {})", name_of(static_cast<StepClass>(i)), ms(m.durations[i]));
  }
  file_->append(line + "}\n");
}

void MetricsFile::append(const EvalMetrics& m) {
  file_->append(fmt::format("{{\"step\": {}, \"attempt\": {}, \"val_loss\": {}, \"val_tokens\": {}}}\n", m.step,
                            m.attempt, real(m.val_loss), m.tokens));
}

void MetricsFile::append(const CheckpointMetrics& m) {
  file_->append(fmt::format(
      "{{\"step\": {}, \"attempt\": {}, \"checkpoint_bytes\": {}, \"waited_ms\": {:.3f}, \"returned_ms\": {:.3f}, "
      "\"snapshot_ms\": {:.3f}, \"durable_ms\": {:.3f}}}\n",
      m.step, m.attempt, m.bytes, m.waited_ms, m.returned_ms, m.snapshot_ms, m.durable_ms));
}

Metrics read_metrics(Files& files, const std::filesystem::path& path) {
  const std::string text = read_file(files, path, kLargestMetricsBytes);
  const std::string_view whole = std::string_view(text).substr(0, whole_bytes(text));
  std::map<std::int64_t, StepMetrics> steps;
  std::map<std::int64_t, EvalMetrics> evals;
  std::map<std::int64_t, CheckpointMetrics> checkpoints;
  Metrics out;
  for (std::size_t begin = 0; begin < whole.size();) {
    const std::size_t end = whole.find('\n', begin);
    const auto json = nlohmann::json::parse(whole.substr(begin, end - begin), nullptr, false);
    const auto number = [&](const std::string& name) {
      return json.contains(name) && json[name].is_number() ? json[name].template get<double>() : kNan;
    };
    if (!json.is_object() || !json.contains("step") || !json["step"].is_number_integer() || !json.contains("attempt") ||
        !json["attempt"].is_number_integer()) {
      throw CorruptError(
          fmt::format("{}: the line at byte {} is not a metrics line; remove it or use another run folder",
                      path.string(), begin),
          path.string(), begin);
    }
    const std::int64_t step = json["step"], attempt = json["attempt"];
    out.highest_attempt = std::max(out.highest_attempt, attempt);
    if (json.contains("val_loss")) {
      evals[step] = {step, attempt, number("val_loss"), json.value("val_tokens", std::int64_t{0})};
    } else if (json.contains("durable_ms")) {
      checkpoints[step] = {step,
                           attempt,
                           json.value("checkpoint_bytes", std::uint64_t{0}),
                           number("waited_ms"),
                           number("returned_ms"),
                           number("snapshot_ms"),
                           number("durable_ms")};
    } else {
      StepMetrics m{
          step, attempt, number("loss"), number("lr"), number("grad_norm"), number("tokens_per_s"), number("mfu"),
          {},   {}};
      m.wall = from_milliseconds(number("step_ms"));
      for (std::size_t i = 0; i < kStepClasses; ++i) {
        m.durations[i] = from_milliseconds(number(fmt::format("{}_ms", name_of(static_cast<StepClass>(i)))));
      }
      steps[step] = m;
    }
    begin = end + 1;
  }
  for (auto& [step, metrics] : steps) out.steps.push_back(metrics);
  for (auto& [step, metrics] : evals) out.evals.push_back(metrics);
  for (auto& [step, metrics] : checkpoints) out.checkpoints.push_back(metrics);
  return out;
}

}  // namespace strake::launch
