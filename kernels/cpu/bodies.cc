#include "kernels/cpu/bodies.h"

#include <utility>

#include "kernels/cpu/kernel_table.h"
#include "runtime/device/cpu/cpu_memory.h"

namespace strake::kernels::cpu {
namespace {

using strake::cpu::data;

// A body that runs `run.operator()<T>()` with T the C++ type of `dtype`, f32 or f64.
template <typename Run>
Body body_for(DType dtype, Run run) {
  if (dtype == DType::kF64) return [run = std::move(run)](NativeStream) { run.template operator()<double>(); };
  return [run = std::move(run)](NativeStream) { run.template operator()<float>(); };
}

}  // namespace

Body attention_forward(const Tensor& out, const Tensor& stats, const Tensor& qkv,
                       const reference::AttentionShape& shape) {
  return body_for(out.dtype(), [=]<typename T>() {
    kernel_table<T>().attention_forward(data<T>(out), data<T>(stats), data<T>(qkv), shape);
  });
}

Body attention_backward(const Tensor& dqkv, const Tensor& dout, const Tensor& qkv, const Tensor& out,
                        const Tensor& stats, const Tensor& scratch, const reference::AttentionShape& shape) {
  return body_for(dqkv.dtype(), [=]<typename T>() {
    kernel_table<T>().attention_backward(data<T>(dqkv), data<T>(dout), data<T>(qkv), data<T>(out), data<T>(stats),
                                         data<T>(scratch), shape);
  });
}

std::int64_t attention_backward_scratch_elems(const reference::AttentionShape& shape) {
  // dK and dV of one head, rows padded to whole vectors (of 16 floats at most).
  return 2 * shape.length * ((shape.head_size + 15) / 16 * 16);
}

}  // namespace strake::kernels::cpu
