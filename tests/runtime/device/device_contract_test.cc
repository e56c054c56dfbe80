// The contract suite on the CPU device and its wrappers.
#include "tests/runtime/device/device_contract.h"

namespace strake::test {
namespace {

INSTANTIATE_TEST_SUITE_P(Devices, DeviceContract, testing::ValuesIn(kCpuDevices), name_of_device);

}  // namespace
}  // namespace strake::test
