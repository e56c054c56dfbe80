// The CUDA device for the contract suites: gates that are kernels, host functions, and what a machine must have.
#pragma once

#include <cstddef>
#include <memory>

#include "tests/runtime/device/device_under_test.h"

namespace strake::test {

// Free memory of the current GPU.
std::size_t free_gpu_bytes();

// Page-locked memory for the gates of one test.
class GateCells;
class GatePool {
 public:
  GatePool();
  ~GatePool();
  GatePool(const GatePool&) = delete;
  GatePool& operator=(const GatePool&) = delete;
  // At most 32. The pool outlives its gates, and they the streams they hold. A gate that was not opened in time is a
  // test failure.
  std::unique_ptr<StreamGate> make_gate();

 private:
  std::unique_ptr<GateCells> cells_;
};

std::unique_ptr<DeviceUnderTest> make_cuda_under_test();
std::unique_ptr<DeviceUnderTest> make_checked_cuda_under_test();  // the first report is an error
std::unique_ptr<DeviceUnderTest> make_faulty_cuda_under_test();   // no fault chosen

}  // namespace strake::test
