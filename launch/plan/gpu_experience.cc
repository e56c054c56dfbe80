#include "launch/plan/gpu_experience.h"

#include <algorithm>

namespace strake::launch {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

// The record, of `strake train --print-schedule` (the row "context and libraries"). GUESS: communicator_bytes.
struct Experience {
  std::string_view from = "measurements on H200, driver 580.159.04, CUDA 13.0, cuBLASLt 13.1.0, cuDNN 9.19.0";
  std::size_t context_bytes = 534 * kMiB;       // context, code, cuBLASLt, cuDNN
  std::size_t communicator_bytes = 400 * kMiB;  // of NCCL, two ranks and more
  // Of matrix products: what they are offered (kernels/cuda/matmuls.h).
  std::size_t matmul_workspace_bytes = 64 * kMiB;
  // Of cuDNN's backward of bf16 attention: sums of the queries' gradient in f32, a row sum, and, where heads share keys
  // and values, their gradients a query head.
  std::size_t bytes_per_query_element = 4;
  std::size_t bytes_per_row = 8;
  std::size_t bytes_per_expanded_element = 4;
};
constexpr Experience kExperience;

// Of the gradient of the token table: three numbers a token, sorting, and partial sums of 32 tokens each. That of a
// split one gets rows of all ranks at once.
std::size_t embedding_bytes(const Job& job) {
  const bool split = job.split_embedding == models::SplitEmbedding::kYes;
  const auto tokens = static_cast<std::size_t>(split ? job.derived.tokens_per_step
                                                     : job.config.train.micro_batch * job.config.train.sequence);
  return tokens * 5 * 4 + (tokens / 32 + 1) * 2 * static_cast<std::size_t>(job.shape.channels) * 4;
}

std::size_t attention_bytes(const Job& job) {
  if (job.dtype != DType::kBF16) return 0;  // kernels of our own, which take none
  const models::TransformerShape& shape = job.shape;
  const auto rows = static_cast<std::size_t>(job.config.train.micro_batch * shape.sequence * shape.heads);
  const std::size_t elems = rows * static_cast<std::size_t>(shape.head_size);
  return elems * kExperience.bytes_per_query_element + rows * kExperience.bytes_per_row +
         (shape.kv_heads < shape.heads ? elems * kExperience.bytes_per_expanded_element : 0);
}

}  // namespace

std::string_view gpu_experience_is_from() { return kExperience.from; }

std::size_t expected_context_bytes(int ranks) { return kExperience.context_bytes + expected_communicator_bytes(ranks); }

std::size_t expected_communicator_bytes(int ranks) { return ranks > 1 ? kExperience.communicator_bytes : 0; }

std::size_t expected_workspace_bytes(const Job& job) {
  return std::max({kExperience.matmul_workspace_bytes, embedding_bytes(job), attention_bytes(job)});
}

}  // namespace strake::launch
