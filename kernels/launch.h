// Where an operation meets its backends: the one place that chooses between cpu/ and cuda/.
//
// FLOPs that kernels declare are those of matrix products (utilisation counts no others); everything else is bound
// by the bytes it moves.
#pragma once

#include <cstdint>

#include "kernels/operand_check.h"
#include "runtime/device/device.h"

namespace strake::kernels {

// Enqueues `operation` with the body for the stream's device. `cpu_body()` makes the CPU device's.
// A CUDA kernel joins as one more argument, used for DeviceKind::kCuda.
template <typename MakeCpuBody>
void launch(Stream& stream, const Operation& operation, MakeCpuBody&& cpu_body) {
  switch (stream.device().kind()) {
    case DeviceKind::kPlan:
      return stream.launch(operation, {});
    case DeviceKind::kCpu:
      return stream.launch(operation, cpu_body());
    case DeviceKind::kCuda:
      break;
  }
  no_backend(operation.kind, stream);
}

// Of a product [m, k] x [k, n].
constexpr double matmul_flops(std::int64_t m, std::int64_t n, std::int64_t k) {
  return 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
}

}  // namespace strake::kernels
