// Column sums: the gradient of a bias, made by the operation that has just read or written the rows.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/body.h"

namespace strake::kernels::reference {

// sums [columns] (+)= sum over the rows of a [rows, columns].
template <typename T>
void column_sums(T* sums, const T* a, std::int64_t rows, std::int64_t columns, bool accumulate) {
  if (!accumulate) std::fill_n(sums, columns, T(0));
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t j = 0; j < columns; ++j) sums[j] += a[r * columns + j];
  }
}

}  // namespace strake::kernels::reference

namespace strake::kernels::cpu {

STRAKE_VECTOR_CODE(column_sums);

// Rows are taken in pieces that stay in a core's cache, for what makes or reads them and again for their sums.
inline std::int64_t rows_in_cache(std::int64_t columns, std::int64_t least_rows) {
  constexpr std::int64_t kElems = 64 * 1024, kVectorRows = 8;  // those that the vector code adds up first
  return std::max(kElems / columns / kVectorRows * kVectorRows, least_rows);
}

}  // namespace strake::kernels::cpu
