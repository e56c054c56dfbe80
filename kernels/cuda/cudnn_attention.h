// CudnnAttentions: causal attention of bf16 through cuDNN's fused graphs, on strided views, with query heads that share
// key heads or not. A graph is built once for a shape and its strides, while the step is planned. Threads: the training
// thread.  Errors: ConfigError for a shape that cuDNN does not support, DeviceError if it fails, both with the shape
// and cuDNN's reason.
#pragma once

#include <cuda_runtime_api.h>

#include <compare>
#include <cstddef>
#include <memory>

#include "kernels/attention.h"

namespace strake::kernels::cuda {

class CudnnAttentions {
 public:
  struct Forward {
    AttentionShape shape;
    HeadStrides q, k, v;
    friend auto operator<=>(const Forward&, const Forward&) = default;
  };
  struct Backward {
    Forward forward;
    HeadStrides dq, dk, dv;
    friend auto operator<=>(const Backward&, const Backward&) = default;
  };

  explicit CudnnAttentions(bool deterministic);
  ~CudnnAttentions();
  CudnnAttentions(const CudnnAttentions&) = delete;
  CudnnAttentions& operator=(const CudnnAttentions&) = delete;

  // Builds what is missing and returns the workspace it needs.
  std::size_t prepare(const Forward& problem);
  std::size_t prepare(const Backward& problem);

  // bf16. out, dout [B, T, H, D] and stats [B, H, T] f32 are contiguous. REQUIRES: prepared.
  void run(cudaStream_t stream, const Forward& problem, void* out, float* stats, const void* q, const void* k,
           const void* v, void* workspace);
  void run(cudaStream_t stream, const Backward& problem, void* dq, void* dk, void* dv, const void* dout, const void* q,
           const void* k, const void* v, const void* out, const float* stats, void* workspace);

 private:
  struct Graphs;
  std::unique_ptr<Graphs> graphs_;
};

}  // namespace strake::kernels::cuda
