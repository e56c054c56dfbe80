// What the kernels of a device can compute, for those who choose a model: one that does not fit is refused before
// anything is planned. The kernels check again, where it is a programmer's error.
// Threads: pure functions. Errors: none.
#pragma once

#include <cstdint>
#include <limits>

#include "runtime/base/dtype.h"
#include "runtime/device/device.h"

namespace strake::kernels {

struct DeviceLimits {
  static constexpr std::int64_t kAny = std::numeric_limits<std::int64_t>::max();

  std::int64_t channels_step = 1, most_channels = kAny;    // of a row, where layer norm takes it, in whole steps
  std::int64_t most_rms_norm_channels = kAny;              // where RMS norm takes the place of layer norm
  std::int64_t head_size_step = 1, most_head_size = kAny;  // of attention
  std::int64_t most_elems = kAny;                          // of all parameters
  std::int64_t most_batch = kAny, most_tokens = kAny;      // sequences of a micro-batch, and their tokens
};

constexpr DeviceLimits limits_of(DeviceKind device, DType dtype) {
  if (device != DeviceKind::kCuda) return {};
  // Rows are read as vectors of 16 bytes, their places counted in 32 bits; those of RMS norm lie in the registers of a
  // block of 8 warps, at most 8 vectors a lane. Heads of bf16 go through cuDNN.
  const auto vector = static_cast<std::int64_t>(16 / size_bytes(dtype));
  return {.channels_step = vector,
          .most_channels = std::int64_t{1} << 20,
          .most_rms_norm_channels = 8 * 8 * 32 * vector,
          .head_size_step = dtype == DType::kBF16 ? 8 : 1,
          .most_head_size = 256,
          .most_elems = std::int64_t{1} << 38,
          // Plain attention of f32 has a layer of its grid a sequence.
          .most_batch = dtype == DType::kBF16 ? DeviceLimits::kAny : 65535,
          .most_tokens = std::int64_t{1} << 30};
}

}  // namespace strake::kernels
