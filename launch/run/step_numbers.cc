#include "launch/run/step_numbers.h"

#include <limits>
#include <nlohmann/json.hpp>

namespace strake::launch {

std::string to_json(const StepNumbers& numbers) {
  return nlohmann::json{{"loss", numbers.loss}, {"lr", numbers.learning_rate}, {"grad_norm", numbers.grad_norm}}.dump();
}

std::optional<StepNumbers> step_numbers_from_json(std::string_view json) {
  const auto read = nlohmann::json::parse(json, nullptr, false);
  if (!read.is_object()) return std::nullopt;
  const auto number = [&](const char* name) {
    const auto found = read.find(name);
    return found != read.end() && found->is_number() ? found->get<double>() : std::numeric_limits<double>::quiet_NaN();
  };
  return StepNumbers{.loss = number("loss"), .learning_rate = number("lr"), .grad_norm = number("grad_norm")};
}

}  // namespace strake::launch
