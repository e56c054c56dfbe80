// Bodies of the operations on the CUDA device. The arguments have been checked by kernels/<operation>.cc; `operation`
// gets the workspace that the body will find in its NativeStream.
#pragma once

#include <cstdint>

#include "runtime/device/device.h"

namespace strake::kernels::cuda {

Body attention_forward(Device& device, Operation& operation, const Tensor& out, const Tensor& stats, const Tensor& qkv,
                       int heads);
Body attention_backward(Device& device, Operation& operation, const Tensor& dqkv, const Tensor& dout, const Tensor& qkv,
                        const Tensor& out, const Tensor& stats, int heads);

}  // namespace strake::kernels::cuda
