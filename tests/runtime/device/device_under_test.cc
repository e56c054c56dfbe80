#include "tests/runtime/device/device_under_test.h"

#include "runtime/device/cpu/cpu_device.h"
#include "runtime/device/cpu/cpu_memory.h"
#include "runtime/device/order_checker.h"
#include "tests/support/faulty_device.h"

namespace strake::test {
namespace {

class CpuUnderTest : public DeviceUnderTest {
 public:
  Device& device() override { return *cpu_; }
  Body host_function(std::function<void()> function) override {
    return [function = std::move(function)](NativeStream) { function(); };
  }
  std::unique_ptr<StreamGate> make_gate() override { return std::make_unique<CpuGate>(); }
  Body mix(std::int64_t id, std::array<Tensor, 3> cells) override {
    return [id, cells](NativeStream) {
      std::int64_t& out = *cpu::data<std::int64_t>(cells[0]);
      out = mixed(id, out, *cpu::data<std::int64_t>(cells[1]), *cpu::data<std::int64_t>(cells[2]));
    };
  }

 private:
  std::unique_ptr<Device> cpu_ = make_cpu_device();
};

template <typename Wrapper>
class WrappedCpuUnderTest final : public CpuUnderTest {
 public:
  template <typename... Arguments>
  explicit WrappedCpuUnderTest(Arguments... arguments) : wrapper_(CpuUnderTest::device(), arguments...) {}
  Device& device() override { return wrapper_; }

 private:
  Wrapper wrapper_;
};

}  // namespace

std::unique_ptr<DeviceUnderTest> make_cpu_under_test() { return std::make_unique<CpuUnderTest>(); }
std::unique_ptr<DeviceUnderTest> make_checked_cpu_under_test() {
  return std::make_unique<WrappedCpuUnderTest<CheckedDevice>>(CheckedDevice::Policy::kThrow);
}
std::unique_ptr<DeviceUnderTest> make_faulty_cpu_under_test() {
  return std::make_unique<WrappedCpuUnderTest<FaultyDevice>>();
}

}  // namespace strake::test
