// VariantDevice: a rank's device under the order checker, with the delays of a variant around it. What a missing wait
// would let run early, some delay makes run early; ranks are not late alike.
// Threads: the rank's training thread. Errors: as the device inside.
#pragma once

#include <cstdint>
#include <memory>

#include "launch/verify/variant.h"
#include "runtime/device/device.h"
#include "runtime/device/order_checker.h"

namespace strake::launch {

class VariantDevice {
 public:
  // Delays are a function of `seed`, the rank, the stream and the number of the operation there. `base` outlives it.
  VariantDevice(Device& base, const Variant& variant, int rank, std::uint64_t seed);

  Device& device() { return *outer_; }
  const OrderChecker& checker() { return checked_.checker(); }

 private:
  CheckedDevice checked_;
  std::unique_ptr<Device> late_;
  Device* outer_;
};

}  // namespace strake::launch
