#include "launch/run/resume.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "launch/train/trainer.h"

namespace strake::launch {

std::vector<std::string> changes_since(const std::string& saved, const Config& now, std::int64_t step,
                                       std::int64_t next_sample) {
  using Json = nlohmann::ordered_json;
  const Json before = Json::parse(saved, nullptr, false);
  if (!before.is_object()) return {};
  std::vector<std::string> lines;
  const Json after = Json::parse(config_to_json(now));
  for (const auto& [section, keys] : after.items()) {
    if (!before.contains(section) || !before[section].is_object()) continue;
    for (const auto& [key, value] : keys.items()) {
      if (!before[section].contains(key) || before[section][key] == value) continue;
      lines.push_back(fmt::format("{}.{}: {} -> {}", section, key, before[section][key].dump(), value.dump()));
      if (section == "train" && key == "init_from") lines.back() += ", which a run that has begun does not read";
    }
  }
  if (lines.empty()) return lines;

  const Config old = config_from_json(saved);
  // The number of ranks changes nothing about the schedule.
  const double rate_before = schedule_of(old, derive(old, 1)).at(step);
  const double rate_now = schedule_of(now, derive(now, 1)).at(step);
  if (rate_before != rate_now) {
    lines.push_back(fmt::format("learning rate of step {}: {:.6g} -> {:.6g}", step + 1, rate_before, rate_now));
  }
  if (old.train.global_batch != now.train.global_batch) {
    lines.push_back(fmt::format("samples go on at {}, {} a step instead of {}", next_sample, now.train.global_batch,
                                old.train.global_batch));
  }
  return lines;
}

}  // namespace strake::launch
