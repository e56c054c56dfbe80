// What the JSON of several benches has alike.
#pragma once

#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "launch/report/breakdown.h"

namespace strake::launch {

template <typename Value>
nlohmann::ordered_json or_null(const std::optional<Value>& value) {
  return value.has_value() ? nlohmann::ordered_json(*value) : nlohmann::ordered_json();
}

// {"forward": ms, ...}
inline nlohmann::ordered_json classes_json(const std::array<double, kStepClasses>& class_ms) {
  nlohmann::ordered_json out;
  for (std::size_t c = 0; c < kStepClasses; ++c) out[std::string(name_of(static_cast<StepClass>(c)))] = class_ms[c];
  return out;
}

}  // namespace strake::launch
