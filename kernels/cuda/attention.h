// Attentions: causal attention of bf16 through cuDNN's fused graphs, f32 through own simple kernels (for parity tests).
//
// q, k, v are strided views of one packed projection; their gradients are written into one packed buffer. A graph is
// built once a shape, while the step is planned.
#pragma once

#include <cuda_runtime_api.h>

#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>

namespace strake::kernels::cuda {

struct AttentionShape {
  std::int64_t batch, sequence, heads, head_size;
  auto operator<=>(const AttentionShape&) const = default;
};

class Attentions {
 public:
  explicit Attentions(bool deterministic);
  ~Attentions();
  Attentions(const Attentions&) = delete;
  Attentions& operator=(const Attentions&) = delete;

  // Builds what is missing and returns the workspace it needs. Throws ConfigError for a shape that cuDNN does not
  // support, DeviceError if it fails, both with the shape and cuDNN's reason.
  std::size_t prepare_forward(const AttentionShape& shape);
  std::size_t prepare_backward(const AttentionShape& shape);

  // bf16. qkv [B, T, 3, H, D], out [B, T, H, D], stats [B, H, T] f32. REQUIRES: prepared.
  void forward(cudaStream_t stream, const AttentionShape& shape, void* out, float* stats, const void* qkv,
               void* workspace);
  void backward(cudaStream_t stream, const AttentionShape& shape, void* dqkv, const void* dout, const void* qkv,
                const void* out, const float* stats, void* workspace);

 private:
  struct Graphs;
  std::unique_ptr<Graphs> graphs_;
};

}  // namespace strake::kernels::cuda
