#include "runtime/device/gpu_facts.h"

#include <array>
#include <utility>

namespace strake {
namespace {

constexpr std::array<std::pair<ClockLimit, const char*>, 6> kLimits{{
    {ClockLimit::kApplicationClocks, "application clocks"},
    {ClockLimit::kPowerCap, "power cap"},
    {ClockLimit::kThermal, "thermal slowdown"},
    {ClockLimit::kHardware, "hardware slowdown"},
    {ClockLimit::kPowerBrake, "power brake"},
    {ClockLimit::kSyncBoost, "sync boost"},
}};

}  // namespace

std::string name_of(ClockLimit limit) {
  for (const auto& [known, name] : kLimits) {
    if (known == limit) return name;
  }
  return "unknown";
}

std::vector<ClockLimit> limits_in(std::uint32_t limits) {
  std::vector<ClockLimit> out;
  for (const auto& [limit, name] : kLimits) {
    if ((limits & static_cast<std::uint32_t>(limit)) != 0) out.push_back(limit);
  }
  return out;
}

bool is_throttle(ClockLimit limit) {
  return limit != ClockLimit::kApplicationClocks && limit != ClockLimit::kSyncBoost;
}

}  // namespace strake
