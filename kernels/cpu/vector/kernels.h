// The vector functions of one instruction set; what they compute is said in kernels/cpu/<operation>.h.
#pragma once

#include <cstdint>

#include "kernels/cpu/attention.h"

namespace strake::kernels::cpu::STRAKE_VECTOR_NAMESPACE {

void attention_forward(float* out, float* stats, const float* qkv, const reference::AttentionShape& shape);
void attention_backward(float* dqkv, const float* dout, const float* qkv, const float* out, const float* stats,
                        float* scratch, const reference::AttentionShape& shape);

}  // namespace strake::kernels::cpu::STRAKE_VECTOR_NAMESPACE
