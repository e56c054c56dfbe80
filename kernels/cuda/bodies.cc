#include "kernels/cuda/bodies.h"

#include <fmt/format.h>

#include "kernels/cuda/body.h"
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/launches.h"
#include "kernels/device_limits.h"
#include "runtime/base/check.h"

namespace strake::kernels::cuda {
namespace {

AttentionShape attention_shape(const Tensor& qkv, int heads) {
  const AttentionShape shape{qkv.size(0), qkv.size(1), heads, qkv.size(2) / 3 / heads};
  const DeviceLimits limits = limits_of(DeviceKind::kCuda, qkv.dtype());
  STRAKE_CHECK(shape.head_size % limits.head_size_step == 0 && shape.head_size <= limits.most_head_size,
               fmt::format("attention: CUDA kernels take heads of a multiple of {} and at most {} channels, not {}",
                           limits.head_size_step, limits.most_head_size, shape.head_size));
  check_tokens("attention", qkv.dtype(), shape.batch, shape.batch * shape.sequence);
  return shape;
}

}  // namespace

Body attention_forward(Device& device, Operation& operation, const Tensor& out, const Tensor& stats, const Tensor& qkv,
                       int heads) {
  const AttentionShape shape = attention_shape(qkv, heads);
  if (qkv.dtype() == DType::kF32) {
    return untyped_body([=](cudaStream_t stream, void*) {
      plain_attention_forward(stream, shape, at<float>(out), at<float>(stats), at<const float>(qkv));
    });
  }
  Attentions& attentions = CudaKernels::of(device).attentions();
  operation.workspace_bytes = attentions.prepare_forward(shape);
  return untyped_body([=, &attentions](cudaStream_t stream, void* workspace) {
    attentions.forward(stream, shape, at(out), at<float>(stats), at(qkv), workspace);
  });
}

Body attention_backward(Device& device, Operation& operation, const Tensor& dqkv, const Tensor& dout, const Tensor& qkv,
                        const Tensor& out, const Tensor& stats, int heads) {
  const AttentionShape shape = attention_shape(qkv, heads);
  if (qkv.dtype() == DType::kF32) {
    return untyped_body([=](cudaStream_t stream, void*) {
      plain_attention_backward(stream, shape, at<float>(dqkv), at<const float>(dout), at<const float>(qkv),
                               at<const float>(out), at<const float>(stats));
    });
  }
  Attentions& attentions = CudaKernels::of(device).attentions();
  operation.workspace_bytes = attentions.prepare_backward(shape);
  return untyped_body([=, &attentions](cudaStream_t stream, void* workspace) {
    attentions.backward(stream, shape, at(dqkv), at(dout), at(qkv), at(out), at<float>(stats), workspace);
  });
}

}  // namespace strake::kernels::cuda
