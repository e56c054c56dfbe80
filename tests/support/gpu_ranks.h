// GpuRanks: the GPUs of ranks that are threads of this process, with their kernels' state, for several runs one after
// the other: attention plans are built once.
//
// Threads: operator() on the rank's thread, which it binds to the rank's GPU. Errors: DeviceError where gpus_missing
// says why.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "runtime/device/device.h"

namespace strake::test {

// Why a test that needs so many GPUs cannot run here; empty: it can.
std::string gpus_missing(int needed);

class GpuRanks {
 public:
  explicit GpuRanks(bool deterministic, int ranks = 2);
  ~GpuRanks();
  GpuRanks(const GpuRanks&) = delete;
  GpuRanks& operator=(const GpuRanks&) = delete;

  // The rank's GPU, behind a wrapper for one run.
  std::unique_ptr<Device> operator()(int rank);

 private:
  bool deterministic_;
  std::vector<std::unique_ptr<Device>> gpus_;
};

}  // namespace strake::test
