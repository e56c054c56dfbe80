// Column sums: the gradient of a bias, where no product brings it along. column_sums.cu
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "runtime/base/dtype.h"

namespace strake::kernels::cuda {

// Where they go: to [columns] (+)= sums.
struct ColumnSums {
  void* to;
  DType type;
  bool add;
};

std::size_t column_sums_workspace_bytes(std::int64_t columns);
// Of a [rows, columns].
void column_sums(cudaStream_t stream, const ColumnSums& sums, DType type, const void* a, std::int64_t rows,
                 std::int64_t columns, void* workspace);
// Its second half, for kernels that sum parts of the rows themselves: partials [kColumnSlices, columns], added in
// order.
constexpr int kColumnSlices = 256;
void combine_column_sums(cudaStream_t stream, const ColumnSums& sums, const float* partials, std::int64_t columns);

}  // namespace strake::kernels::cuda
