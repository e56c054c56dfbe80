// Bodies of the operations on the CPU device: resolve the tensors, then call the kernel table. The arguments have been
// checked by kernels/<operation>.cc.
#pragma once

#include <cstdint>

#include "kernels/cpu/attention.h"
#include "runtime/device/device.h"

namespace strake::kernels::cpu {

Body attention_forward(const Tensor& out, const Tensor& stats, const Tensor& qkv,
                       const reference::AttentionShape& shape);
Body attention_backward(const Tensor& dqkv, const Tensor& dout, const Tensor& qkv, const Tensor& out,
                        const Tensor& stats, const Tensor& scratch, const reference::AttentionShape& shape);
std::int64_t attention_backward_scratch_elems(const reference::AttentionShape& shape);

}  // namespace strake::kernels::cpu
