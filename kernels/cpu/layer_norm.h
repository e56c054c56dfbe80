// Readable reference of kernels/layer_norm.h on plain arrays, for float and double.
#pragma once

#include <cstdint>

namespace strake::kernels::reference {

// y, x [rows, channels]; mean, rstd [rows]; weight, bias [channels].
template <typename T>
void layer_norm_forward(T* y, T* mean, T* rstd, const T* x, const T* weight, const T* bias, std::int64_t rows,
                        std::int64_t channels);

// x_out = x + delta, then the norm of x_out. x_out may be x.
template <typename T>
void residual_layer_norm_forward(T* x_out, T* y, T* mean, T* rstd, const T* x, const T* delta, const T* weight,
                                 const T* bias, std::int64_t rows, std::int64_t channels);

// dx +=; dweight, dbias (+)=.
template <typename T>
void layer_norm_backward(T* dx, T* dweight, T* dbias, const T* dy, const T* x, const T* mean, const T* rstd,
                         const T* weight, std::int64_t rows, std::int64_t channels, bool accumulate);

}  // namespace strake::kernels::reference
