// Checks of a kernel's operands, once per launch: dtype, shape and layout, with a message that names
// operation and operand. A wrong operand is a programmer's error: it aborts.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string_view>

#include "runtime/device/device.h"

namespace strake::kernels {

// `tensor` is defined, contiguous, of `dtype` and `shape`.
void check_operand(std::string_view operation, std::string_view operand, const Tensor& tensor, DType dtype,
                   std::initializer_list<std::int64_t> shape);

// The same for a gradient, which may also be kept in f32 beside bf16 values.
void check_gradient(std::string_view operation, std::string_view operand, const Tensor& tensor, DType values,
                    std::initializer_list<std::int64_t> shape);

// `tensor` is defined, contiguous, of rank `rank` (0: any), and of f32, f64 or bf16: the operand whose shape and dtype
// rule the others.
void check_leading_operand(std::string_view operation, std::string_view operand, const Tensor& tensor, int rank);

// Of an operation over the rows of a leading operand x, [rows, channels]: `like_x` have its shape, `of_rows` a
// statistic a row, `of_channels` and `gradients` (check_gradient) a value a channel.
struct NamedOperand {
  std::string_view name;
  const Tensor& tensor;
};
struct RowOperands {
  std::initializer_list<NamedOperand> like_x, of_rows, of_channels, gradients = {};
};
void check_row_operands(std::string_view operation, const Tensor& x, const RowOperands& operands);

// The type of sums and statistics (mean, log-sum-exp, loss) of values of `dtype`: f32, and f64 for f64.
constexpr DType stats_dtype(DType dtype) { return dtype == DType::kF64 ? DType::kF64 : DType::kF32; }

// The operation has no implementation for the stream's device in this program: aborts.
[[noreturn]] void no_backend(std::string_view operation, const Stream& stream);

}  // namespace strake::kernels
