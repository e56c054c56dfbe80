// Sizes of grids. Plain C++: for nvcc, and for tests on machines without CUDA.
#pragma once

#include <cstdint>
#include <limits>

#include "runtime/base/check.h"

namespace strake::kernels::cuda {

// Blocks of a grid along x, of which CUDA takes kMostBlocks.
constexpr std::int64_t kMostBlocks = std::numeric_limits<std::int32_t>::max();
inline int blocks_for(std::int64_t work, int per_block) {
  const std::int64_t blocks = (work + per_block - 1) / per_block;
  STRAKE_CHECK(blocks <= kMostBlocks, "more blocks than a grid can have");
  return static_cast<int>(blocks);
}

}  // namespace strake::kernels::cuda
