#include "kernels/cpu/elementwise.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "runtime/base/dtype.h"

namespace strake::kernels::reference {
namespace {

constexpr double kSqrtTwoOverPi = 0.79788456080286535588;
constexpr double kCubic = 0.044715;

}  // namespace

template <typename T>
void gelu_forward(T* y, const T* x, std::int64_t elems) {
  for (std::int64_t i = 0; i < elems; ++i) {
    const T inner = T(kSqrtTwoOverPi) * (x[i] + T(kCubic) * x[i] * x[i] * x[i]);
    y[i] = T(0.5) * x[i] * (T(1) + std::tanh(inner));
  }
}

template <typename T>
void gelu_backward(T* dx, const T* dy, const T* x, std::int64_t elems) {
  for (std::int64_t i = 0; i < elems; ++i) {
    const T inner = T(kSqrtTwoOverPi) * (x[i] + T(kCubic) * x[i] * x[i] * x[i]);
    const T inner_slope = T(kSqrtTwoOverPi) * (T(1) + T(3 * kCubic) * x[i] * x[i]);
    const T t = std::tanh(inner);
    dx[i] = dy[i] * (T(0.5) * (T(1) + t) + T(0.5) * x[i] * (T(1) - t * t) * inner_slope);
  }
}

template <typename T>
void add(T* y, const T* a, const T* b, std::int64_t elems) {
  for (std::int64_t i = 0; i < elems; ++i) y[i] = a[i] + b[i];
}

template <typename To, typename From>
void cast(To* dst, const From* src, std::int64_t elems) {
  std::transform(src, src + elems, dst, [](From value) -> To {
    if constexpr (std::is_same_v<To, From>) return value;
    if constexpr (std::is_same_v<To, BFloat16>) return to_bfloat16(value);
    if constexpr (std::is_same_v<From, BFloat16>) return to_float(value);
    if constexpr (std::is_arithmetic_v<To> && std::is_arithmetic_v<From>) return static_cast<To>(value);
  });
}

template void gelu_forward(float*, const float*, std::int64_t);
template void gelu_forward(double*, const double*, std::int64_t);
template void gelu_backward(float*, const float*, const float*, std::int64_t);
template void gelu_backward(double*, const double*, const double*, std::int64_t);
template void add(float*, const float*, const float*, std::int64_t);
template void add(double*, const double*, const double*, std::int64_t);
template void cast(float*, const float*, std::int64_t);
template void cast(double*, const double*, std::int64_t);
template void cast(double*, const float*, std::int64_t);
template void cast(float*, const double*, std::int64_t);
template void cast(BFloat16*, const float*, std::int64_t);
template void cast(float*, const BFloat16*, std::int64_t);

}  // namespace strake::kernels::reference
