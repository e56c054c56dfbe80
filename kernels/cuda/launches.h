// Launch functions on raw device addresses that .cu files define and bodies.cc calls: attention's.
#pragma once

#include <cuda_runtime_api.h>

namespace strake::kernels::cuda {

// plain_attention.cu: f32, head sizes up to 256.
struct AttentionShape;
void plain_attention_forward(cudaStream_t stream, const AttentionShape& shape, float* out, float* stats,
                             const float* qkv);
void plain_attention_backward(cudaStream_t stream, const AttentionShape& shape, float* dqkv, const float* dout,
                              const float* qkv, const float* out, const float* stats);

}  // namespace strake::kernels::cuda
