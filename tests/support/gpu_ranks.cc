#include "tests/support/gpu_ranks.h"

#include "runtime/base/error.h"
#include "runtime/device/forwarding.h"

#ifdef STRAKE_HAS_CUDA
#include "kernels/cuda/make_kernels.h"
#include "runtime/device/cuda/cuda_device.h"
#endif

namespace strake::test {

GpuRanks::GpuRanks(bool deterministic, int ranks)
    : deterministic_(deterministic), gpus_(static_cast<std::size_t>(ranks)) {}

#ifdef STRAKE_HAS_CUDA

std::string gpus_missing(int needed) {
  const int gpus = cuda_device_number();
  if (gpus >= needed) return "";
  if (gpus == 0) return "no GPU: " + cuda_unavailable_reason();
  return "needs " + std::to_string(needed) + " GPUs, this machine has " + std::to_string(gpus);
}

GpuRanks::~GpuRanks() {
  for (std::size_t rank = 0; rank < gpus_.size(); ++rank) {
    if (gpus_[rank] == nullptr) continue;
    select_cuda_device(static_cast<int>(rank));
    gpus_[rank].reset();
  }
}

std::unique_ptr<Device> GpuRanks::operator()(int rank) {
  select_cuda_device(rank);
  auto& gpu = gpus_.at(static_cast<std::size_t>(rank));
  if (gpu == nullptr) gpu = make_cuda_device(rank, kernels::cuda::make_kernels(deterministic_));
  return std::make_unique<ForwardingDevice>(*gpu);
}

#else

std::string gpus_missing(int) { return "no GPU: built without CUDA"; }
GpuRanks::~GpuRanks() = default;
std::unique_ptr<Device> GpuRanks::operator()(int) { throw DeviceError(gpus_missing(1)); }

#endif

}  // namespace strake::test
