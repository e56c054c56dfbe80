#include "comm/rank_order_sum.h"

#include <algorithm>

#include "runtime/base/check.h"

namespace strake::comm {
namespace {

// Sums are built up in a block that stays in the L1 cache: outputs may alias inputs, the block never
// does, so the loops vectorise and each input is read from memory once.
constexpr std::int64_t kBlockElems = 2048;

float widen(BFloat16 value) { return to_float(value); }
float widen(float value) { return value; }
double widen(double value) { return value; }
void narrow(float value, BFloat16& out) { out = to_bfloat16(value); }
void narrow(float value, float& out) { out = value; }
void narrow(double value, double& out) { out = value; }

template <typename T, typename Sum>
void sum_blocks(std::span<const std::byte* const> inputs, std::span<std::byte* const> outputs, std::int64_t elems) {
  alignas(64) Sum sum[kBlockElems];
  for (std::int64_t begin = 0; begin < elems; begin += kBlockElems) {
    const std::int64_t block_elems = std::min(kBlockElems, elems - begin);
    const T* first = reinterpret_cast<const T*>(inputs[0]) + begin;
    for (std::int64_t i = 0; i < block_elems; ++i) sum[i] = widen(first[i]);
    for (const std::byte* input : inputs.subspan(1)) {
      const T* next = reinterpret_cast<const T*>(input) + begin;
      for (std::int64_t i = 0; i < block_elems; ++i) sum[i] += widen(next[i]);
    }
    for (std::byte* output : outputs) {
      T* out = reinterpret_cast<T*>(output) + begin;
      for (std::int64_t i = 0; i < block_elems; ++i) narrow(sum[i], out[i]);
    }
  }
}

}  // namespace

void sum_in_rank_order(DType dtype, std::span<const std::byte* const> inputs, std::span<std::byte* const> outputs,
                       std::int64_t elems) {
  STRAKE_CHECK(!inputs.empty(), "a sum of nothing");
  switch (dtype) {
    case DType::kF32:
      return sum_blocks<float, float>(inputs, outputs, elems);
    case DType::kF64:
      return sum_blocks<double, double>(inputs, outputs, elems);
    case DType::kBF16:
      return sum_blocks<BFloat16, float>(inputs, outputs, elems);
    default:
      break;
  }
  STRAKE_CHECK(false, "reductions are defined for f32, f64 and bf16, not " + std::string(name_of(dtype)));
}

Piece piece_of(std::int64_t range_elems, int rank, int size) {
  constexpr std::int64_t kLineElems = 64;  // a cache line of the narrowest dtype
  const std::int64_t even = (range_elems + size - 1) / size;
  const std::int64_t piece_elems = (even + kLineElems - 1) / kLineElems * kLineElems;
  const std::int64_t begin = std::min(range_elems, rank * piece_elems);
  return {begin, std::min(piece_elems, range_elems - begin)};
}

}  // namespace strake::comm
