#include "launch/bench/calibration.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "runtime/base/check.h"

namespace strake::launch {
namespace {

using Json = nlohmann::ordered_json;

double compute_ms(const RankStep& step) { return step.of(StepClass::kForward) + step.of(StepClass::kBackward); }
double exposed_ms(const RankStep& step) { return step.of(StepClass::kExposedComm); }

// Median of each repeat.
std::vector<double> by_repeat(std::int64_t steps, std::span<const RankMeasurement> ranks) {
  const std::vector<double> walls = mean_over_ranks(ranks, &RankStep::wall_ms);
  std::vector<double> out;
  for (auto begin = walls.begin(); begin != walls.end(); begin += steps) {
    out.push_back(median_of({begin, begin + steps}));
  }
  return out;
}

}  // namespace

Calibration calibration_of(std::int64_t steps, std::int64_t repeats, std::span<const RankMeasurement> ranks,
                           std::span<const RankMeasurement> stubbed) {
  const auto measured = static_cast<std::size_t>(steps * repeats);
  STRAKE_CHECK(measured > 0 && !ranks.empty() && ranks.size() == stubbed.size(), "nothing was measured");
  STRAKE_CHECK(ranks.front().steps.size() == measured && stubbed.front().steps.size() == measured,
               fmt::format("{} and {} of {} steps were measured", ranks.front().steps.size(),
                           stubbed.front().steps.size(), measured));
  const std::vector<double> real_ms = by_repeat(steps, ranks), stubbed_ms = by_repeat(steps, stubbed);
  Calibration out{.step_ms = median_of(real_ms),
                  .stubbed_step_ms = median_of(stubbed_ms),
                  .compute_ms = median_of(mean_over_ranks(ranks, compute_ms)),
                  .stubbed_compute_ms = median_of(mean_over_ranks(stubbed, compute_ms)),
                  .exposed_ms = median_of(mean_over_ranks(ranks, exposed_ms)),
                  .stubbed_exposed_ms = median_of(mean_over_ranks(stubbed, exposed_ms)),
                  .efficiency_losses = {}};
  for (std::size_t i = 0; i < real_ms.size(); ++i) out.efficiency_losses.push_back(1 - stubbed_ms[i] / real_ms[i]);
  return out;
}

Json to_json(const Calibration& calibration) {
  return {{"step_ms", calibration.step_ms},
          {"stubbed_step_ms", calibration.stubbed_step_ms},
          {"efficiency_loss", calibration.efficiency_loss()},
          {"efficiency_losses", calibration.efficiency_losses},
          {"compute_ms", calibration.compute_ms},
          {"stubbed_compute_ms", calibration.stubbed_compute_ms},
          {"compute_dilation", calibration.compute_dilation()},
          {"exposed_ms", calibration.exposed_ms},
          {"stubbed_exposed_ms", calibration.stubbed_exposed_ms}};
}

std::string table(const Calibration& calibration) {
  const auto [least, most] = std::ranges::minmax(calibration.efficiency_losses);
  return fmt::format(
      "  {:<15}efficiency loss {:.1f} % ({:.1f} .. {:.1f} between repeats): {:.3f} ms a step, {:.3f} where nothing "
      "travels\n"
      "  {:<15}compute dilation {:.3f}: forward and backward {:.3f} ms, {:.3f} where nothing travels\n"
      "  {:<15}{:.3f} ms exposed, {:.3f} where nothing travels",
      "calibration", 100 * calibration.efficiency_loss(), 100 * least, 100 * most, calibration.step_ms,
      calibration.stubbed_step_ms, "", calibration.compute_dilation(), calibration.compute_ms,
      calibration.stubbed_compute_ms, "", calibration.exposed_ms, calibration.stubbed_exposed_ms);
}

}  // namespace strake::launch
