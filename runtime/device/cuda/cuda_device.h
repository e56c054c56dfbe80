// The CUDA device: one GPU of this machine behind the Device interface.
//
// Bodies run at once on the enqueueing thread with the stream's cudaStream_t and enqueue kernels. Each launch is
// an NVTX range with the operation's name. Host memory is page-locked. Marks are timed events.
// Threads, errors: as Device. A GPU fault is sticky: every later call throws, and the process must end.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "runtime/device/device.h"
#include "runtime/device/gpu_facts.h"

namespace strake {

// GPUs this process can use; 0 without a driver.
int cuda_device_number();
// Why cuda_device_number() is 0: "no NVIDIA driver", ...
std::string cuda_unavailable_reason();

// Where a device takes its own memory from.
struct GpuMemorySource {
  // Null: there is none, and `why` says it in words.
  void* (*take)(std::size_t size_bytes, std::string& why);
  void (*give_back)(void* memory) noexcept;
};
GpuMemorySource cuda_memory();  // cudaMalloc

// REQUIRES: 0 <= ordinal < cuda_device_number(). Streams keep a pointer to the device: destroy them first.
// `kernels` is what the kernels keep for this device (kernels/cuda).
std::unique_ptr<Device> make_cuda_device(int ordinal, std::unique_ptr<KernelState> kernels,
                                         GpuMemorySource memory = cuda_memory());
// Makes the GPU current for the calling host thread: before anything else touches CUDA on it.
void select_cuda_device(int ordinal);
int current_cuda_device();

// What the CUDA runtime knows of a GPU.
GpuFacts cuda_facts(int ordinal);
// All GPUs that this process can use with everything that the driver knows of them, or why there are none.
GpuMachine cuda_machine();
// How two GPUs of this host reach each other, also where this process sees one of them alone.
GpuLink cuda_link(const std::string& pci_bus_id, const std::string& other);
// Reads the current GPU; null if the driver does not tell.
std::unique_ptr<GpuSensor> make_cuda_sensor();

// "13.0": the newest CUDA that the driver supports; empty without one.
std::string cuda_driver_version();
// "13.0": the runtime that this program contains.
std::string cuda_runtime_version();

}  // namespace strake
