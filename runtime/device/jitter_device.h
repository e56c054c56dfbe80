// JitterDevice: delays operations of every stream at random. Results must not change by a bit: what a missing
// wait would let run early, some delay makes run early.
#pragma once

#include <chrono>
#include <cstdint>

#include "runtime/device/forwarding.h"

namespace strake {

class JitterDevice final : public ForwardingDevice {
 public:
  // One operation in eight of each stream sleeps for up to `longest` first; which and how long is f(seed, stream,
  // number).
  JitterDevice(Device& inner, std::chrono::microseconds longest, std::uint64_t seed)
      : ForwardingDevice(inner), longest_(longest), seed_(seed) {}
  std::unique_ptr<Stream> make_stream(std::string_view name, StreamPriority priority) override;

 private:
  std::chrono::microseconds longest_;
  std::uint64_t seed_;
};

}  // namespace strake
