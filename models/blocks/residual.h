// The residual stream between blocks.
#pragma once

#include <cstdint>

#include "runtime/base/dtype.h"
#include "runtime/device/device.h"
#include "runtime/device/tensor.h"

namespace strake::models {

// x + delta, both [N, C]; delta undefined: x. The norm that reads the sum makes it: adding and normalising is one pass
// over memory, across the border of two blocks.
struct Residual {
  Tensor x;
  Tensor delta;
};

// What a micro-batch is computed in, known before memory is taken.
struct BatchShape {
  std::int64_t batch;     // B, sequences
  std::int64_t sequence;  // T
  DType dtype;
  DeviceKind target;  // that kernels are chosen for

  std::int64_t rows() const { return batch * sequence; }  // N
  // Of statistics: means, log-sum-exps, losses.
  DType stats() const { return dtype == DType::kF64 ? DType::kF64 : DType::kF32; }
};

}  // namespace strake::models
