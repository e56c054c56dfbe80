// The classes of a step's wall time on one rank. Every instant of the compute stream belongs to one.
// Values are written to disk (step records): never renumber.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace strake {

enum class StepClass : std::uint8_t {
  kDataWait = 0,  // idle while the host waited for the next batch
  kH2d = 1,       // waiting for the copy of a batch that was at hand
  kForward = 2,
  kBackward = 3,
  kExposedComm = 4,  // waiting for gradients to be reduced
  kOptimizer = 5,    // clipping included
  kCheckpoint = 6,   // inside the checkpoint call
  kHostGap = 7,      // idle because the host had enqueued nothing, for any other reason
  kOther = 8,        // explicit spans: evaluation
};
inline constexpr std::size_t kStepClasses = 9;

constexpr std::string_view name_of(StepClass step_class) {
  constexpr std::array<std::string_view, kStepClasses> names{
      "data_wait", "h2d", "forward", "backward", "exposed_comm", "optimizer", "checkpoint", "host_gap", "other"};
  return names[static_cast<std::size_t>(step_class)];
}

}  // namespace strake
