#include "kernels/cuda/cuda_kernels.h"

#include <cudnn.h>
#include <fmt/format.h>
#include <nvrtc.h>

#include <utility>

#include "kernels/cuda/make_kernels.h"
#include "runtime/base/check.h"
#include "runtime/device/cuda/cuda_device.h"

namespace strake::kernels::cuda {

CudaKernels::CudaKernels(bool deterministic)
    : products_(matmuls_, deterministic),
      attention_(deterministic),
      deterministic_(deterministic),
      multiprocessors_(cuda_facts(current_cuda_device()).multiprocessors) {}

int CudaKernels::multiprocessors_for(MatmulProblem::Kind kind) const {
  const int spared = kind == MatmulProblem::Kind::kForward ? spared_.forward : spared_.backward;
  STRAKE_CHECK(spared >= 0 && spared < multiprocessors_, "products need multiprocessors");
  return spared == 0 ? 0 : multiprocessors_ - spared;
}

CudaKernels& CudaKernels::of(Device& device) {
  auto* state = dynamic_cast<CudaKernels*>(device.kernel_state());
  STRAKE_CHECK(state != nullptr, "the CUDA device was made without kernels");
  return *state;
}

std::vector<std::string> CudaKernels::tune() {
  if (deterministic_) return {};
  std::vector<std::string> lines = matmuls_.tune();
  for (std::string& line : products_.tune()) lines.push_back(std::move(line));  // with the algorithms found
  return lines;
}

std::map<std::string, std::string> CudaKernels::choices() const {
  std::map<std::string, std::string> all = matmuls_.choices();
  all.merge(products_.choices());
  return all;
}

void CudaKernels::apply(const std::map<std::string, std::string>& choices) {
  matmuls_.apply(choices);
  products_.apply(choices);
}

std::string CudaKernels::tuned_for() const {
  if (deterministic_) return "";
  // To be raised when another choice could come out: other candidates, other ways to time them.
  constexpr int kTuning = 1;
  return fmt::format("{}, {} multiprocessors, cublaslt {}, cudnn {}, tuning {}", cuda_facts(current_cuda_device()).name,
                     multiprocessors_, cublasLtGetVersion(), cudnnGetVersion(), kTuning);
}

std::unique_ptr<KernelState> make_kernels(bool deterministic) { return std::make_unique<CudaKernels>(deterministic); }

std::vector<std::pair<std::string, std::string>> library_versions() {
  // Both encode a version as major * 10000 + minor * 100 + patch.
  const auto text = [](std::size_t version) {
    return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
  };
  int nvrtc_major = 0, nvrtc_minor = 0;
  STRAKE_CHECK(nvrtcVersion(&nvrtc_major, &nvrtc_minor) == NVRTC_SUCCESS, "reads two numbers");
  return {{"cublaslt", text(cublasLtGetVersion())},
          {"cudnn", text(cudnnGetVersion())},
          {"nvrtc", fmt::format("{}.{}", nvrtc_major, nvrtc_minor)}};
}

}  // namespace strake::kernels::cuda
