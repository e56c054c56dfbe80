#include "runtime/telemetry/spread.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "runtime/base/check.h"

namespace strake {

Spread spread_of(std::vector<double> samples) {
  STRAKE_CHECK(!samples.empty(), "nothing was measured");
  std::sort(samples.begin(), samples.end());
  const auto last = static_cast<double>(samples.size() - 1);
  const auto at = [&](double share) {
    const auto below = static_cast<std::size_t>(share * last);
    const std::size_t above = std::min(below + 1, samples.size() - 1);
    return samples[below] + (share * last - static_cast<double>(below)) * (samples[above] - samples[below]);
  };
  return {.median = at(0.5),
          .low = samples.front(),
          .high = samples.back(),
          .p10 = at(0.1),
          .p90 = at(0.9),
          .mean = std::accumulate(samples.begin(), samples.end(), 0.0) / static_cast<double>(samples.size()),
          .samples = samples.size()};
}

double median_of(std::vector<double> samples) { return spread_of(std::move(samples)).median; }

}  // namespace strake
