// Where an operation meets its backends: the one place that chooses between cpu/ and cuda/.
//
// The arguments of an operation are a value (kernels/<operation>.h) which knows how to make its body on either device:
//   Body on_cpu(CpuCode code) const;                            // cpu/<operation>.cc
//   Body on_cuda(Device& device, Operation& operation) const;   // cuda/<operation>.cu, notes the workspace it needs
// Both are called when the operation was checked, and may rely on that.
//
// FLOPs that kernels declare are those of matrix products (utilisation counts no others); everything else is bound
// by the bytes it moves.
#pragma once

#include <cstdint>
#include <utility>

#include "kernels/cpu/code.h"
#include "kernels/operand_check.h"
#include "runtime/device/device.h"

namespace strake::kernels {

#ifdef STRAKE_HAS_CUDA
inline constexpr bool kHasCuda = true;
#else
inline constexpr bool kHasCuda = false;
#endif

// A plan for a GPU that is not here, in any program: there is nothing to build kernels with, and nothing runs.
inline bool only_declares(const Device& device) {
  return device.kind() == DeviceKind::kPlan && device.kernel_state() == nullptr;
}

// Enqueues `operation` with the body for the device that the stream computes or plans for. A program without CUDA never
// instantiates the call of on_cuda, so it refers to nothing in cuda/.
template <typename Arguments>
void launch(Stream& stream, Operation operation, const Arguments& arguments) {
  switch (stream.device().target()) {
    case DeviceKind::kCpu:
      return stream.launch(operation, arguments.on_cpu(CpuCode::fastest()));
    case DeviceKind::kCuda:
      if (only_declares(stream.device())) return stream.launch(operation, {});
      if constexpr (kHasCuda) {
        Body body = arguments.on_cuda(stream.device(), operation);
        return stream.launch(operation, std::move(body));
      }
      break;
    case DeviceKind::kPlan:
      break;
  }
  no_backend(operation.kind, stream);
}

// Of a product [m, k] x [k, n].
constexpr double matmul_flops(std::int64_t m, std::int64_t n, std::int64_t k) {
  return 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
}

}  // namespace strake::kernels
