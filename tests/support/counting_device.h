// CountingDevice: counts what it is asked to create. Threads, errors: as the device inside.
#pragma once

#include <compare>
#include <cstddef>
#include <memory>
#include <string_view>

#include "runtime/device/forwarding.h"

namespace strake::test {

class CountingDevice final : public ForwardingDevice {
 public:
  explicit CountingDevice(Device& inner) : ForwardingDevice(inner) {}

  std::unique_ptr<Stream> make_stream(std::string_view name, StreamPriority priority) override {
    ++streams_;
    return ForwardingDevice::make_stream(name, priority);
  }
  Event make_event(std::string_view name) override {
    ++events_;
    return ForwardingDevice::make_event(name);
  }
  Mark make_mark(std::string_view name) override {
    ++marks_;
    return ForwardingDevice::make_mark(name);
  }
  DeviceAddress allocate(std::string_view name, std::size_t size_bytes, MemoryKind kind) override {
    ++allocations_;
    return ForwardingDevice::allocate(name, size_bytes, kind);
  }

  struct Taken {
    int streams, events, marks, allocations;
    std::size_t bytes;
    auto operator<=>(const Taken&) const = default;
  };
  Taken taken() const { return {streams_, events_, marks_, allocations_, allocated_bytes()}; }

 private:
  int streams_ = 0, events_ = 0, marks_ = 0, allocations_ = 0;
};

}  // namespace strake::test
