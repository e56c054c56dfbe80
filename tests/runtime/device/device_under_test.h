// The devices that the contract suite runs on. A backend joins by a factory of its own.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <ostream>
#include <string_view>
#include <utility>

#include "runtime/device/device.h"

namespace strake::test {

class DeviceUnderTest {
 public:
  virtual ~DeviceUnderTest() = default;
  virtual Device& device() = 0;
  // The body of an operation that calls `function` when the stream gets there.
  virtual Body host_function(std::function<void()> function) = 0;
};

std::unique_ptr<DeviceUnderTest> make_cpu_under_test();
std::unique_ptr<DeviceUnderTest> make_checked_cpu_under_test();  // the first report is an error
std::unique_ptr<DeviceUnderTest> make_faulty_cpu_under_test();   // no fault chosen

struct DeviceFactory {
  std::string_view name;
  std::unique_ptr<DeviceUnderTest> (*make)();
};
inline std::ostream& operator<<(std::ostream& out, const DeviceFactory& factory) { return out << factory.name; }

inline constexpr std::array<DeviceFactory, 3> kCpuDevices{{
    {"Cpu", make_cpu_under_test},
    {"CheckedCpu", make_checked_cpu_under_test},
    {"FaultyCpu", make_faulty_cpu_under_test},
}};

}  // namespace strake::test
