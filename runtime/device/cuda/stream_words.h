// Words of page-locked host memory that a stream stores and waits for, without a kernel and without a host function:
// those share one thread, and one that waits would hold up all streams.
//
// Functions of the driver that the runtime library has none for. They are looked up when first used, so the program
// starts where no driver is.
// Threads: any, on the stream's GPU. Errors: DeviceError.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace strake::cuda {

// Behind everything that the stream did before, which whoever sees the value sees too, the host included.
void stream_stores(cudaStream_t stream, std::uintptr_t address, std::uint32_t value);
// The stream does not move on while the word, as a signed difference, is below `value`. Other streams do.
void stream_awaits_at_least(cudaStream_t stream, std::uintptr_t address, std::uint32_t value);

}  // namespace strake::cuda
