#include "runtime/device/cuda/stream_words.h"

#include <cudaTypedefs.h>
#include <fmt/format.h>

#include "runtime/base/error.h"
#include "runtime/device/cuda/cuda_call.h"

namespace strake::cuda {
namespace {

constexpr unsigned kVersion = 11070;  // of CUDA, whose form of these functions is meant

template <typename Function>
Function driver_function(const char* name) {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
  STRAKE_CUDA(cudaGetDriverEntryPointByVersion(name, &found, kVersion, cudaEnableDefault, &result));
  if (found == nullptr || result != cudaDriverEntryPointSuccess) {
    throw DeviceError(fmt::format("the NVIDIA driver has no {}, which comm.backend = staged needs", name));
  }
  return reinterpret_cast<Function>(found);
}

void require(CUresult result, const char* call) {
  if (result == CUDA_SUCCESS) [[likely]]
    return;
  static const auto text_of = driver_function<PFN_cuGetErrorName_v6000>("cuGetErrorName");
  const char* text = nullptr;
  throw DeviceError(
      fmt::format("{} failed: {}", call, text_of(result, &text) == CUDA_SUCCESS ? text : "an unknown error"));
}

}  // namespace

void stream_stores(cudaStream_t stream, std::uintptr_t address, std::uint32_t value) {
  static const auto store = driver_function<PFN_cuStreamWriteValue32_v11070>("cuStreamWriteValue32");
  require(store(stream, address, value, CU_STREAM_WRITE_VALUE_DEFAULT), "cuStreamWriteValue32");
}

void stream_awaits_at_least(cudaStream_t stream, std::uintptr_t address, std::uint32_t value) {
  static const auto await = driver_function<PFN_cuStreamWaitValue32_v11070>("cuStreamWaitValue32");
  require(await(stream, address, value, CU_STREAM_WAIT_VALUE_GEQ), "cuStreamWaitValue32");
}

}  // namespace strake::cuda
