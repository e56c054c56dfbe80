// The addition behind every reduction on host memory, in one place so that no backend can add in another
// order: ((x0 + x1) + x2) + ... element by element. f32 and f64 in their own type; bf16 in f32, rounded once.
// Elements do not meet, so any cut of a range into pieces gives the same bits.
// Threads: pure. Errors: none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "runtime/base/dtype.h"

namespace strake::comm {

constexpr bool reducible(DType dtype) { return dtype == DType::kF32 || dtype == DType::kF64 || dtype == DType::kBF16; }

// Every output becomes the sum of the inputs, which are given in rank order.
// REQUIRES: reducible(dtype); at least one input; an output is an input or overlaps none.
void sum_in_rank_order(DType dtype, std::span<const std::byte* const> inputs, std::span<std::byte* const> outputs,
                       std::int64_t elems);

// The piece of a range that a rank of a group reduces: whole cache lines, the last pieces may be shorter or empty.
struct Piece {
  std::int64_t begin_elems;
  std::int64_t elems;
};
Piece piece_of(std::int64_t range_elems, int rank, int size);

}  // namespace strake::comm
