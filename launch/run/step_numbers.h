// StepNumbers: what a step has measured of training, as its checkpoint keeps it: whoever goes on from there knows the
// step that is not done again, also if the run ended before its line in metrics.jsonl.
// Threads: pure functions.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace strake::launch {

struct StepNumbers {
  double loss = 0;  // over all ranks
  double learning_rate = 0;
  double grad_norm = 0;

  bool operator==(const StepNumbers&) const = default;
};

// All digits; what is not finite is null, and read as NaN.
std::string to_json(const StepNumbers& numbers);
// nullopt: there are none, as of imported weights and of older programs.
std::optional<StepNumbers> step_numbers_from_json(std::string_view json);

}  // namespace strake::launch
