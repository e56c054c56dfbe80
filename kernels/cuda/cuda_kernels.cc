#include "kernels/cuda/cuda_kernels.h"

#include <cudnn.h>
#include <fmt/format.h>

#include "kernels/cuda/make_kernels.h"
#include "runtime/base/check.h"
#include "runtime/device/cuda/cuda_call.h"

namespace strake::kernels::cuda {

CudaKernels& CudaKernels::of(Device& device) {
  auto* state = dynamic_cast<CudaKernels*>(device.kernel_state());
  STRAKE_CHECK(state != nullptr, "the CUDA device was made without kernels");
  return *state;
}

std::vector<std::string> CudaKernels::tune() {
  if (deterministic_) return {};
  cudaStream_t stream = nullptr;
  STRAKE_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  std::vector<std::string> report = matmuls_.tune(stream);
  STRAKE_CUDA(cudaStreamDestroy(stream));
  return report;
}

std::unique_ptr<KernelState> make_kernels(bool deterministic) { return std::make_unique<CudaKernels>(deterministic); }

std::string library_versions() {
  const std::size_t cublas = cublasLtGetVersion(), cudnn = cudnnGetVersion();
  return fmt::format("cuBLASLt {}.{}.{}, cuDNN {}.{}.{}", cublas / 10000, cublas / 100 % 100, cublas % 100,
                     cudnn / 10000, cudnn / 100 % 100, cudnn % 100);
}

}  // namespace strake::kernels::cuda
