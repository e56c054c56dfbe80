#include "kernels/cuda/body.h"

#include <fmt/format.h>

#include "kernels/device_limits.h"

namespace strake::kernels::cuda {
namespace {

void check_multiple(std::string_view operation, std::string_view what, std::int64_t value, std::int64_t step,
                    std::int64_t most) {
  STRAKE_CHECK(value % step == 0 && value <= most,
               fmt::format("{}: CUDA kernels take {} of a multiple of {} and at most {} elements, not {}", operation,
                           what, step, most, value));
}

}  // namespace

void check_type(DType dtype) {
  STRAKE_CHECK(dtype == DType::kBF16 || dtype == DType::kF32,
               fmt::format("CUDA kernels compute in bf16 and f32, not {}", name_of(dtype)));
}

void check_vectors(std::string_view operation, DType dtype, std::int64_t channels) {
  const DeviceLimits limits = limits_of(DeviceKind::kCuda, dtype);
  STRAKE_CHECK(channels % limits.channels_step == 0,
               fmt::format("{}: CUDA kernels take rows of a multiple of {} elements, not {}", operation,
                           limits.channels_step, channels));
}

void check_rows(std::string_view operation, const Tensor& tensor, std::int64_t channels) {
  const DeviceLimits limits = limits_of(DeviceKind::kCuda, tensor.dtype());
  check_multiple(operation, "rows", channels, limits.channels_step, limits.most_channels);
}

void check_rms_norm_rows(std::string_view operation, const Tensor& tensor, std::int64_t channels) {
  const DeviceLimits limits = limits_of(DeviceKind::kCuda, tensor.dtype());
  check_multiple(operation, "rows", channels, limits.channels_step, limits.most_rms_norm_channels);
}

void check_head_size(std::string_view operation, DType dtype, std::int64_t head_size) {
  const DeviceLimits limits = limits_of(DeviceKind::kCuda, dtype);
  check_multiple(operation, "heads", head_size, limits.head_size_step, limits.most_head_size);
}

void check_tokens(std::string_view operation, DType dtype, std::int64_t batch, std::int64_t tokens) {
  const DeviceLimits limits = limits_of(DeviceKind::kCuda, dtype);
  STRAKE_CHECK(batch <= limits.most_batch && tokens <= limits.most_tokens,
               fmt::format("{}: CUDA kernels take {} sequences and {} tokens at once, not {} and {}", operation,
                           limits.most_batch, limits.most_tokens, batch, tokens));
}

}  // namespace strake::kernels::cuda
