// CudaKernels: what the kernels of one GPU keep between launches: library handles, the algorithm of each matrix
// product and what lies in its epilogue, the built plan of each attention shape. Owned by the CUDA device.
//
// Planning a step (PlanDevice) meets every product and attention shape, builds them and learns their workspace; tune()
// then times the candidate algorithms. Nothing is built or measured inside a step.
// Threads: the training thread. Errors: DeviceError naming library call and shape; ConfigError for a shape of attention
// that is not supported.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/cudnn_attention.h"
#include "kernels/cuda/fused_products.h"
#include "kernels/cuda/matmuls.h"
#include "runtime/device/device.h"

namespace strake::kernels::cuda {

class CudaKernels final : public KernelState {
 public:
  // `deterministic`: only algorithms that give the same bits again. REQUIRES: the device is current.
  explicit CudaKernels(bool deterministic);

  FusedProducts& products() { return products_; }
  CudnnAttentions& attentions() { return attention_; }

  std::vector<std::string> tune() override;
  std::map<std::string, std::string> choices() const override;
  void apply(const std::map<std::string, std::string>& choices) override;
  std::string tuned_for() const override;
  // REQUIRES: fewer than the GPU has.
  void spare(SparedMultiprocessors spared) override { spared_ = spared; }
  // What a product is laid out for now: MatmulProblem::multiprocessors.
  int multiprocessors_for(MatmulProblem::Kind kind) const;

  // Of `device`, which must be a CUDA device or plan for one.
  static CudaKernels& of(Device& device);

 private:
  Matmuls matmuls_;
  FusedProducts products_;
  CudnnAttentions attention_;
  bool deterministic_;
  int multiprocessors_;
  SparedMultiprocessors spared_;
};

}  // namespace strake::kernels::cuda
