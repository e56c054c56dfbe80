// Readable reference of kernels/matmul.h on plain arrays, for float and double. Row-major.
#pragma once

#include <cstdint>

namespace strake::kernels::reference {

// y [rows, outs] = x [rows, ins] weight[outs, ins]^T + bias [outs]; bias may be null.
template <typename T>
void linear_forward(T* y, const T* x, const T* weight, const T* bias, std::int64_t rows, std::int64_t outs,
                    std::int64_t ins);

// dweight [outs, ins] (+)= dy [rows, outs]^T x [rows, ins].
template <typename T>
void linear_backward_weight(T* dweight, const T* dy, const T* x, std::int64_t rows, std::int64_t outs, std::int64_t ins,
                            bool accumulate);

// dx [rows, ins] = dy [rows, outs] weight [outs, ins].
template <typename T>
void linear_backward_input(T* dx, const T* dy, const T* weight, std::int64_t rows, std::int64_t outs, std::int64_t ins);

// sums [columns] (+)= sum over the rows of a [rows, columns].
template <typename T>
void column_sums(T* sums, const T* a, std::int64_t rows, std::int64_t columns, bool accumulate);

}  // namespace strake::kernels::reference
