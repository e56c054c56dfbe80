// GELU and its gradient as kernels of their own, for what has no tensors: elementwise.cu.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/column_sums.h"

namespace strake::kernels::cuda {

// y = gelu(x).
void gelu(cudaStream_t stream, DType type, void* y, const void* x, std::int64_t elems);
// dx = dy * gelu'(x); dx may be dy.
void gelu_gradient(cudaStream_t stream, DType type, void* dx, const void* dy, const void* x, std::int64_t elems);
// The same of [rows, columns], and the column sums of dx, in workspace of column_sums_workspace_bytes(columns).
void gelu_gradient(cudaStream_t stream, DType type, void* dx, const void* dy, const void* x, std::int64_t rows,
                   std::int64_t columns, const ColumnSums& sums, void* workspace);

}  // namespace strake::kernels::cuda
