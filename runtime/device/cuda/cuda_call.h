// STRAKE_CUDA(call): runs a CUDA runtime call; a failure clears the sticky error and throws DeviceError with the call,
// the error's name and text, and the place. STRAKE_LOG_CUDA(call): for destructors, prints instead.
#pragma once

#include <cuda_runtime_api.h>

#include <source_location>

namespace strake::cuda {

[[noreturn]] void call_failed(cudaError_t error, const char* call,
                              std::source_location where = std::source_location::current());
void call_failed_in_destructor(cudaError_t error, const char* call) noexcept;

}  // namespace strake::cuda

#define STRAKE_CUDA(call)                                                                    \
  do {                                                                                       \
    if (const cudaError_t strake_error = (call); strake_error != cudaSuccess) [[unlikely]] { \
      ::strake::cuda::call_failed(strake_error, #call);                                      \
    }                                                                                        \
  } while (false)
#define STRAKE_LOG_CUDA(call)                                                                \
  do {                                                                                       \
    if (const cudaError_t strake_error = (call); strake_error != cudaSuccess) [[unlikely]] { \
      ::strake::cuda::call_failed_in_destructor(strake_error, #call);                        \
    }                                                                                        \
  } while (false)
