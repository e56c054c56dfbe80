// The CUDA device: one GPU of this machine behind the Device interface.
//
// Bodies run at once on the enqueueing thread with the stream's cudaStream_t and enqueue kernels. Each launch is
// an NVTX range with the operation's name. Host memory is page-locked. Events carry time.
// Threads, errors: as Device. A GPU fault is sticky: every later call throws, and the process must end.
#pragma once

#include <memory>
#include <string>

#include "runtime/device/device.h"

namespace strake {

// GPUs this process can use; 0 without a driver.
int cuda_device_number();
// Why cuda_device_number() is 0: "no CUDA driver", ...
std::string cuda_unavailable_reason();

// REQUIRES: 0 <= ordinal < cuda_device_number(). Streams keep a pointer to the device: destroy them first.
// `kernels` is what the kernels keep for this device (kernels/cuda).
std::unique_ptr<Device> make_cuda_device(int ordinal, std::unique_ptr<KernelState> kernels);
// Makes the GPU current for the calling host thread: before anything else touches CUDA on it.
void select_cuda_device(int ordinal);
int current_cuda_device();

struct CudaFacts {
  std::string name;
  int multiprocessors = 0;
  std::size_t memory_bytes = 0;
  int driver_version = 0;  // 13000 = 13.0
  int runtime_version = 0;
  int sm_clock_mhz = 0;        // highest
  int compute_capability = 0;  // 90 = 9.0
};
CudaFacts cuda_facts(int ordinal);

}  // namespace strake
