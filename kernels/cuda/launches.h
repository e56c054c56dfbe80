// Launch functions of the CUDA kernels, on raw device addresses: what .cu files define and bodies.cc calls. Plain C++,
// so that nvcc sees kernels and launches only. All sizes were checked by kernels/<operation>.cc.
//
// `Type` says the element type of an address. Accumulation is in f32 (f64 for block sums); every result is
// the same bits for the same input, whatever else runs. Launches are checked by the caller (cudaGetLastError).
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/optimizer_arguments.h"

namespace strake::kernels::cuda {

enum class Type : std::uint8_t { kF32, kBF16 };

// An address and what lies there.
struct Operand {
  void* address = nullptr;
  Type type = Type::kF32;
};

// elementwise.cu
void gelu_forward(cudaStream_t stream, Type type, void* y, const void* x, std::int64_t elems);
void gelu_backward(cudaStream_t stream, Type type, void* dx, const void* dy, const void* x, std::int64_t elems);
void add(cudaStream_t stream, Type type, void* y, const void* a, const void* b, std::int64_t elems);
void cast(cudaStream_t stream, Operand dst, Operand src, std::int64_t elems);
// dbias[n] (+)= sum over rows of dy[row, n].
std::size_t column_sum_workspace_bytes(std::int64_t columns);
void column_sum(cudaStream_t stream, Operand dbias, Type type, const void* dy, bool accumulate, std::int64_t rows,
                std::int64_t columns, void* workspace);

// embedding.cu
void embedding_forward(cudaStream_t stream, Type type, void* x, const std::int32_t* tokens, const void* token_table,
                       const void* position_table, std::int64_t batch, std::int64_t sequence, std::int64_t channels);
std::size_t embedding_backward_workspace_bytes(std::int64_t tokens, std::int64_t channels);
// Returns what the sort said.
[[nodiscard]] cudaError_t embedding_backward(cudaStream_t stream, Type type, Operand dtoken_table,
                                             bool accumulate_token, Operand dposition_table, bool accumulate_position,
                                             const void* dx, const std::int32_t* tokens, std::int64_t batch,
                                             std::int64_t sequence, std::int64_t channels, std::int64_t vocab,
                                             void* workspace);

// cross_entropy.cu
void cross_entropy(cudaStream_t stream, Type type, void* logits, float* losses, const std::int32_t* targets,
                   std::int64_t rows, std::int64_t vocab, std::int64_t padded_vocab, float gradient_scale,
                   bool gradient);
void accumulate_loss(cudaStream_t stream, float* total, const float* losses, std::int64_t rows, double scale,
                     bool accumulate);

// optimizer.cu
void gradient_norm(cudaStream_t stream, float* norm, float* clip, double* block_sums, Operand gradients,
                   const SegmentTable& segments, double max_norm);
// compute_weights: rounded copy of the updated master weights; null: none.
void adamw(cudaStream_t stream, float* weights, float* first_moment, float* second_moment, Operand gradients,
           void* compute_weights, const float* clip, const SegmentTable& segments, const AdamW& step);

// fingerprint.cu. Adds to out[0].
constexpr std::uint64_t kFingerprintStep = 0x9e3779b97f4a7c15;
constexpr std::uint64_t kFingerprintMix1 = 0xbf58476d1ce4e5b9, kFingerprintMix2 = 0x94d049bb133111eb;
void fingerprint(cudaStream_t stream, void* out, const void* data, std::int64_t size_bytes);

// plain_attention.cu: f32, head sizes up to 256.
struct AttentionShape;
void plain_attention_forward(cudaStream_t stream, const AttentionShape& shape, float* out, float* stats,
                             const float* qkv);
void plain_attention_backward(cudaStream_t stream, const AttentionShape& shape, float* dqkv, const float* dout,
                              const float* qkv, const float* out, const float* stats);

// An error if this program has no code for the current GPU. elementwise.cu
[[nodiscard]] cudaError_t find_code();

// Uniform bf16 values in (-1, 1), for timing. test_kernels.cu
void fill_random(cudaStream_t stream, void* values, std::size_t elems, std::uint32_t seed);
// Sleeps on the GPU, in one block of one thread: a test's slow operation. test_kernels.cu
void spin(cudaStream_t stream, std::int64_t nanoseconds);
// Where a test holds a stream: page-locked host memory, written by both sides. test_kernels.cu
struct GateCell {
  std::uint32_t open, reached, expired;
};
// Holds the stream until `open` is set. Gives up after `limit_ns` and sets `expired`: a test that fails hangs no GPU.
void hold(cudaStream_t stream, GateCell* gate, std::int64_t limit_ns);
// out = (out * 31 + a) * 131 + b + id, modulo 2^64: a step of a random program. test_kernels.cu
void mix(cudaStream_t stream, std::int64_t* out, const std::int64_t* a, const std::int64_t* b, std::int64_t id);
// A launch that the runtime refuses, and a kernel that traps (the context is lost). test_kernels.cu
void launch_refused(cudaStream_t stream);
void launch_trapping(cudaStream_t stream);

}  // namespace strake::kernels::cuda
