// GpuRanks: the GPUs of ranks that are threads of this process, with their kernels' state, for several runs one after
// the other: attention plans are built once.
//
// Threads: operator() on the rank's thread, which it binds to the rank's GPU.
#pragma once

#include <array>
#include <memory>

#include "kernels/cuda/make_kernels.h"
#include "runtime/device/cuda/cuda_device.h"
#include "runtime/device/forwarding.h"

namespace strake::test {

class GpuRanks {
 public:
  explicit GpuRanks(bool deterministic) : deterministic_(deterministic) {}
  ~GpuRanks() {
    for (int rank = 0; rank < kMost; ++rank) {
      auto& gpu = gpus_[static_cast<std::size_t>(rank)];
      if (gpu == nullptr) continue;
      select_cuda_device(rank);
      gpu.reset();
    }
  }
  GpuRanks(const GpuRanks&) = delete;
  GpuRanks& operator=(const GpuRanks&) = delete;

  std::unique_ptr<Device> operator()(int rank) {
    select_cuda_device(rank);
    auto& gpu = gpus_.at(static_cast<std::size_t>(rank));
    if (gpu == nullptr) gpu = make_cuda_device(rank, kernels::cuda::make_kernels(deterministic_));
    return std::make_unique<ForwardingDevice>(*gpu);
  }

 private:
  static constexpr int kMost = 2;
  bool deterministic_;
  std::array<std::unique_ptr<Device>, kMost> gpus_;
};

}  // namespace strake::test
