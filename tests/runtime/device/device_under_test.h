// The devices that the contract suite runs on. A backend joins by a factory of its own (the CUDA device:
// tests/cuda/cuda_under_test.h).
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <string_view>
#include <utility>

#include "runtime/device/device.h"
#include "tests/support/stream_gate.h"

namespace strake::test {

// What mix() stores; the serial model of a random program calls it too.
constexpr std::int64_t mixed(std::int64_t id, std::int64_t old, std::int64_t a, std::int64_t b) {
  const auto value = (static_cast<std::uint64_t>(old) * 31 + static_cast<std::uint64_t>(a)) * 131 +
                     static_cast<std::uint64_t>(b) + static_cast<std::uint64_t>(id);
  return static_cast<std::int64_t>(value);
}

class DeviceUnderTest {
 public:
  virtual ~DeviceUnderTest() = default;
  virtual Device& device() = 0;
  // The body of an operation that calls `function` when the stream gets there.
  virtual Body host_function(std::function<void()> function) = 0;
  virtual std::unique_ptr<StreamGate> make_gate() = 0;
  // cells[0] = mixed(id, cells[0], cells[1], cells[2]): one i64 of device memory each.
  virtual Body mix(std::int64_t id, std::array<Tensor, 3> cells) = 0;
};

std::unique_ptr<DeviceUnderTest> make_cpu_under_test();
std::unique_ptr<DeviceUnderTest> make_checked_cpu_under_test();  // the first report is an error
std::unique_ptr<DeviceUnderTest> make_faulty_cpu_under_test();   // no fault chosen

struct DeviceFactory {
  std::string_view name;
  std::unique_ptr<DeviceUnderTest> (*make)();
  std::string (*unavailable)() = [] { return std::string(); };  // why this machine cannot make it; empty: it can
};
inline std::ostream& operator<<(std::ostream& out, const DeviceFactory& factory) { return out << factory.name; }
inline std::string name_of_device(const testing::TestParamInfo<DeviceFactory>& info) {
  return std::string(info.param.name);
}

inline constexpr std::array<DeviceFactory, 3> kCpuDevices{{
    {"Cpu", make_cpu_under_test},
    {"CheckedCpu", make_checked_cpu_under_test},
    {"FaultyCpu", make_faulty_cpu_under_test},
}};

}  // namespace strake::test
