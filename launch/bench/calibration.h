// Calibration: what communication costs a step, by steps in which nothing travels between ranks, measured in turn with
// those of the schedule as it is. Pure functions of values; the JSON is documented in docs/formats.md.
// Threads: values.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "launch/bench/step_figures.h"

namespace strake::launch {

struct Calibration {
  double step_ms = 0, stubbed_step_ms = 0;        // medians of the repeats' medians
  double compute_ms = 0, stubbed_compute_ms = 0;  // forward and backward: medians over all steps
  double exposed_ms = 0, stubbed_exposed_ms = 0;  // likewise
  std::vector<double> efficiency_losses;          // of each repeat

  // Of a step, the part that it would not take if communication were free.
  double efficiency_loss() const { return 1 - stubbed_step_ms / step_ms; }
  // How much longer the same computation takes while something travels: they share cores, memory and links.
  double compute_dilation() const { return compute_ms / stubbed_compute_ms; }
};

// REQUIRES: every rank measured steps * repeats > 0 steps in both; ranks in order.
Calibration calibration_of(std::int64_t steps, std::int64_t repeats, std::span<const RankMeasurement> ranks,
                           std::span<const RankMeasurement> stubbed);

nlohmann::ordered_json to_json(const Calibration& calibration);
// For people; no newline at the end.
std::string table(const Calibration& calibration);

}  // namespace strake::launch
