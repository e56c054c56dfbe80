// What cuda/<operation>.cu files are made of on the host: the body that launches kernels, typed by the operands, and
// checks of what kernels take. Accumulation is in f32 (f64 for block sums); every result is the same bits for the same
// input, whatever else runs.
//
//   Body GeluForward::on_cuda(Device&, Operation&) const {
//     return cuda::body(x.dtype(), [=, *this]<typename T>(cudaStream_t stream, void* workspace) {
//       kernel<<<blocks_for(x.elems(), 256), 256, 0, stream>>>(at<T>(y), at<const T>(x), x.elems());
//     });
//   }
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <string_view>
#include <utility>

#include "kernels/cuda/grid.h"
#include "runtime/device/cuda/cuda_call.h"
#include "runtime/device/device.h"

namespace strake::kernels::cuda {

// The tensor's memory; null where it is undefined.
template <typename T = void>
T* at(const Tensor& tensor) {
  return tensor.defined() ? reinterpret_cast<T*>(tensor.address().value) : nullptr;
}

// bf16 or f32. Aborts for any other: the CPU device has more.
void check_type(DType dtype);

// Calls `run.operator()<T>()` with T the C++ type of `dtype`.
template <typename Run>
void with_type(DType dtype, Run&& run) {
  check_type(dtype);
  if (dtype == DType::kBF16) return run.template operator()<__nv_bfloat16>();
  run.template operator()<float>();
}

// A body that calls `launch(stream, workspace)` and reports what the launch itself got wrong.
template <typename Launch>
Body untyped_body(Launch launch) {
  return [launch = std::move(launch)](NativeStream native) {
    launch(static_cast<cudaStream_t>(native.handle), reinterpret_cast<void*>(native.workspace.value));
    STRAKE_CUDA(cudaGetLastError());
  };
}
// The same with `launch.operator()<T>(stream, workspace)`, T the C++ type of `dtype`.
template <typename Launch>
Body body(DType dtype, Launch launch) {
  check_type(dtype);
  return untyped_body([dtype, launch = std::move(launch)](cudaStream_t stream, void* workspace) {
    with_type(dtype, [&]<typename T>() { launch.template operator()<T>(stream, workspace); });
  });
}

// Rows of `channels` elements of `tensor`'s type, heads of `head_size`, are what kernels take
// (kernels/device_limits.h): whole vectors, and where rows lie in registers not too many.
void check_vectors(std::string_view operation, DType dtype, std::int64_t channels);
void check_rows(std::string_view operation, const Tensor& tensor, std::int64_t channels);
void check_rms_norm_rows(std::string_view operation, const Tensor& tensor, std::int64_t channels);
void check_head_size(std::string_view operation, DType dtype, std::int64_t head_size);
// Places of a micro-batch: an i32 in the kernels, a block each in some grids.
void check_tokens(std::string_view operation, DType dtype, std::int64_t batch, std::int64_t tokens);

}  // namespace strake::kernels::cuda
