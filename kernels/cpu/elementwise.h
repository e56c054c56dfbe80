// Readable reference of kernels/elementwise.h on plain arrays, for float and double.
#pragma once

#include <cstdint>

namespace strake::kernels::reference {

template <typename T>
void gelu_forward(T* y, const T* x, std::int64_t elems);

// dx may be dy.
template <typename T>
void gelu_backward(T* dx, const T* dy, const T* x, std::int64_t elems);

// y may be a or b.
template <typename T>
void add(T* y, const T* a, const T* b, std::int64_t elems);

// Between float and BFloat16, float and double, and equal types; rounds to nearest even.
template <typename To, typename From>
void cast(To* dst, const From* src, std::int64_t elems);

}  // namespace strake::kernels::reference
