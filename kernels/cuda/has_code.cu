#include "kernels/cuda/make_kernels.h"
#include "runtime/device/cuda/cuda_call.h"

namespace strake::kernels::cuda {
namespace {

// All .cu files are compiled for the same GPUs: one kernel speaks for all.
__global__ void any_kernel() {}

}  // namespace

bool has_code_for_current_gpu() {
  cudaFuncAttributes attributes;
  const cudaError_t error = cudaFuncGetAttributes(&attributes, any_kernel);
  if (error == cudaErrorNoKernelImageForDevice || error == cudaErrorInvalidDeviceFunction) {
    cudaGetLastError();  // the next call must not report this one
    return false;
  }
  STRAKE_CUDA(error);
  return true;
}

}  // namespace strake::kernels::cuda
