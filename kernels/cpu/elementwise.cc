#include "kernels/elementwise.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "kernels/cpu/body.h"
#include "kernels/cpu/column_sums.h"
#include "runtime/base/check.h"
#include "runtime/base/dtype.h"

namespace strake::kernels {
namespace reference {
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

}  // namespace reference

namespace cpu {

STRAKE_VECTOR_CODE(gelu_forward);
STRAKE_VECTOR_CODE(gelu_backward);
STRAKE_VECTOR_CODE(add);

}  // namespace cpu

Body GeluForward::on_cpu(CpuCode code) const {
  return cpu::body(x.dtype(),
                   [=, *this]<typename T>() { cpu::gelu_forward.in<T>(code)(data<T>(y), data<T>(x), x.elems()); });
}

Body GeluBackward::on_cpu(CpuCode code) const {
  return cpu::body(x.dtype(), [=, *this]<typename T>() {
    const auto backward = cpu::gelu_backward.in<T>(code);
    if (!dbias.defined()) return backward(data<T>(dx), data<T>(dy), data<T>(x), x.elems());
    const std::int64_t rows = x.size(0), columns = x.size(1), piece = cpu::rows_in_cache(3 * columns, 8);
    for (std::int64_t row = 0; row < rows; row += piece) {
      const std::int64_t count = std::min(piece, rows - row), at = row * columns;
      backward(data<T>(dx) + at, data<T>(dy) + at, data<T>(x) + at, count * columns);
      cpu::column_sums.in<T>(code)(data<T>(dbias), data<T>(dx) + at, count, columns,
                                   accumulate == Accumulate::kAdd || row > 0);
    }
  });
}

Body Add::on_cpu(CpuCode code) const {
  return cpu::body(a.dtype(),
                   [=, *this]<typename T>() { cpu::add.in<T>(code)(data<T>(y), data<T>(a), data<T>(b), a.elems()); });
}

// Bound by memory, and the plain loop vectorises.
Body Cast::on_cpu(CpuCode) const {
  const auto from_to = [&]<typename To, typename From>(To, From) -> Body {
    return [*this](NativeStream) { reference::cast(data<To>(dst), data<From>(src), dst.elems()); };
  };
  const std::pair types(dst.dtype(), src.dtype());
  if (types == std::pair(DType::kF32, DType::kF32)) return from_to(float(), float());
  if (types == std::pair(DType::kF64, DType::kF64)) return from_to(double(), double());
  if (types == std::pair(DType::kF64, DType::kF32)) return from_to(double(), float());
  if (types == std::pair(DType::kF32, DType::kF64)) return from_to(float(), double());
  if (types == std::pair(DType::kBF16, DType::kF32)) return from_to(BFloat16(), float());
  if (types == std::pair(DType::kF32, DType::kBF16)) return from_to(float(), BFloat16());
  check_failed("cast", fmt::format("no cast from {} to {}", name_of(src.dtype()), name_of(dst.dtype())));
}

}  // namespace strake::kernels
