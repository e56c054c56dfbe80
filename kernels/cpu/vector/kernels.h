// The vector functions of one instruction set; what they compute is said in kernels/cpu/<operation>.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/optimizer.h"

namespace strake::kernels::cpu::STRAKE_VECTOR_NAMESPACE {

void column_sums(float* sums, const float* a, std::int64_t rows, std::int64_t columns, bool accumulate);

void attention_forward(float* out, float* stats, const float* qkv, const reference::AttentionShape& shape);
void attention_backward(float* dqkv, const float* dout, const float* qkv, const float* out, const float* stats,
                        float* scratch, const reference::AttentionShape& shape);


void gelu_forward(float* y, const float* x, std::int64_t elems);
void gelu_backward(float* dx, const float* dy, const float* x, std::int64_t elems);
void add(float* y, const float* a, const float* b, std::int64_t elems);

void cross_entropy_forward_backward(float* logits, float* losses, const std::int32_t* targets, std::int64_t rows,
                                    std::int64_t vocab, std::int64_t columns, float gradient_scale);
void cross_entropy_forward(float* losses, const float* logits, const std::int32_t* targets, std::int64_t rows,
                           std::int64_t vocab, std::int64_t columns);

double sum_of_squares(const float* gradients, std::int64_t elems);
void adamw(float* weights, float* first_moment, float* second_moment, const float* gradients, std::int64_t elems,
           float clip, const reference::AdamWScalars& scalars);

std::uint64_t fingerprint(const std::byte* data, std::int64_t size_bytes);

}  // namespace strake::kernels::cpu::STRAKE_VECTOR_NAMESPACE
