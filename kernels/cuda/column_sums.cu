// Bound by memory: 16-byte accesses.
#include "kernels/cuda/body.h"
#include "kernels/cuda/column_sums.h"
#include "kernels/cuda/device_code.cuh"

namespace strake::kernels::cuda {
namespace {

// Rows are cut into kColumnSlices parts; a thread sums one vector of columns over one part, the second kernel adds the
// parts in order.
constexpr int kSliceThreads = 64;

template <typename T>
__global__ void __launch_bounds__(kSliceThreads)
    column_partial_kernel(float* partials, const T* dy, std::int64_t rows, std::int64_t columns) {
  using V = Vector<T>;
  const std::int64_t column = (blockIdx.x * static_cast<std::int64_t>(kSliceThreads) + threadIdx.x) * V::kElems;
  if (column >= columns) return;
  const std::int64_t per_slice = (rows + kColumnSlices - 1) / kColumnSlices;
  const std::int64_t begin = blockIdx.y * per_slice;
  const std::int64_t end = begin + per_slice < rows ? begin + per_slice : rows;
  const bool whole = column + V::kElems <= columns && columns % V::kElems == 0;
  float sums[V::kElems] = {};
  if (whole) {
#pragma unroll 4
    for (std::int64_t row = begin; row < end; ++row) {
      const V in = V::load(dy + row * columns + column);
#pragma unroll
      for (int i = 0; i < V::kElems; ++i) sums[i] += to_float(in.values[i]);
    }
  } else {
    for (std::int64_t row = begin; row < end; ++row) {
      for (int i = 0; i < V::kElems && column + i < columns; ++i) sums[i] += to_float(dy[row * columns + column + i]);
    }
  }
  for (int i = 0; i < V::kElems && column + i < columns; ++i) partials[blockIdx.y * columns + column + i] = sums[i];
}

template <typename Out>
__global__ void column_combine_kernel(Out* dbias, const float* partials, bool accumulate, std::int64_t columns) {
  const std::int64_t column = blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x;
  if (column >= columns) return;
  float total = 0;
#pragma unroll 8
  for (int slice = 0; slice < kColumnSlices; ++slice) total += partials[slice * columns + column];
  if (accumulate) total += to_float(dbias[column]);
  dbias[column] = from_float<Out>(total);
}

}  // namespace

std::size_t column_sums_workspace_bytes(std::int64_t columns) {
  return kColumnSlices * static_cast<std::size_t>(columns) * sizeof(float);
}

void column_sums(cudaStream_t stream, const ColumnSums& sums, DType type, const void* a, std::int64_t rows,
                 std::int64_t columns, void* workspace) {
  auto* partials = static_cast<float*>(workspace);
  with_type(type, [&]<typename T>() {
    const dim3 grid(blocks_for(columns, kSliceThreads * Vector<T>::kElems), kColumnSlices);
    column_partial_kernel<<<grid, kSliceThreads, 0, stream>>>(partials, static_cast<const T*>(a), rows, columns);
  });
  combine_column_sums(stream, sums, partials, columns);
}

void combine_column_sums(cudaStream_t stream, const ColumnSums& sums, const float* partials, std::int64_t columns) {
  with_type(sums.type, [&]<typename Out>() {
    column_combine_kernel<<<blocks_for(columns, 128), 128, 0, stream>>>(static_cast<Out*>(sums.to), partials, sums.add,
                                                                        columns);
  });
}

}  // namespace strake::kernels::cuda
