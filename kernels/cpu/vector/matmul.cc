#include "kernels/cpu/vector/lanes.h"

namespace strake::kernels::cpu::STRAKE_VECTOR_NAMESPACE {

void column_sums(float* sums, const float* a, std::int64_t rows, std::int64_t columns, bool accumulate) {
  if (!accumulate) for_lanes(columns, [&](std::int64_t i, auto part) { store(sums + i, Lanes{}, part); });
  constexpr std::int64_t kBlock = 8;
  for (std::int64_t begin = 0; begin < rows; begin += kBlock) {
    const std::int64_t block = rows - begin < kBlock ? rows - begin : kBlock;
    for_lanes(columns, [&](std::int64_t i, auto part) {
      Lanes block_sum = {};
      for (std::int64_t r = 0; r < block; ++r) block_sum += load(a + (begin + r) * columns + i, part);
      store(sums + i, load(sums + i, part) + block_sum, part);
    });
  }
}

}  // namespace strake::kernels::cpu::STRAKE_VECTOR_NAMESPACE
