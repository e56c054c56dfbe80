#include "kernels/operand_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "runtime/base/check.h"

namespace strake::kernels {

void check_operand(std::string_view operation, std::string_view operand, const Tensor& tensor, DType dtype,
                   std::initializer_list<std::int64_t> shape) {
  STRAKE_CHECK(tensor.defined(), fmt::format("{}: {} is undefined", operation, operand));
  if (tensor.dtype() != dtype || !std::ranges::equal(tensor.shape(), shape)) [[unlikely]] {
    std::string wanted;
    for (const std::int64_t extent : shape) wanted += (wanted.empty() ? "" : ", ") + std::to_string(extent);
    check_failed("operand", fmt::format("{}: {} is {}, must be {}[{}]", operation, operand, tensor.describe(),
                                        name_of(dtype), wanted));
  }
  STRAKE_CHECK(tensor.contiguous(),
               fmt::format("{}: {} ({}) must be contiguous", operation, operand, tensor.describe()));
}

void check_gradient(std::string_view operation, std::string_view operand, const Tensor& tensor, DType values,
                    std::initializer_list<std::int64_t> shape) {
  const bool wide = values == DType::kBF16 && tensor.defined() && tensor.dtype() == DType::kF32;
  check_operand(operation, operand, tensor, wide ? DType::kF32 : values, shape);
}

void check_leading_operand(std::string_view operation, std::string_view operand, const Tensor& tensor, int rank) {
  STRAKE_CHECK(tensor.defined(), fmt::format("{}: {} is undefined", operation, operand));
  STRAKE_CHECK(rank == 0 || tensor.rank() == rank,
               fmt::format("{}: {} is {}, must have {} axes", operation, operand, tensor.describe(), rank));
  STRAKE_CHECK(tensor.dtype() == DType::kF32 || tensor.dtype() == DType::kF64 || tensor.dtype() == DType::kBF16,
               fmt::format("{}: {} is {}, must be f32, f64 or bf16", operation, operand, tensor.describe()));
  STRAKE_CHECK(tensor.contiguous(),
               fmt::format("{}: {} ({}) must be contiguous", operation, operand, tensor.describe()));
}

void check_row_operands(std::string_view operation, const Tensor& x, const RowOperands& operands) {
  check_leading_operand(operation, "x", x, 2);
  const std::int64_t rows = x.size(0), channels = x.size(1);
  for (const auto& [name, tensor] : operands.like_x)
    check_operand(operation, name, tensor, x.dtype(), {rows, channels});
  for (const auto& [name, tensor] : operands.of_rows) {
    check_operand(operation, name, tensor, stats_dtype(x.dtype()), {rows});
  }
  for (const auto& [name, tensor] : operands.of_channels) check_operand(operation, name, tensor, x.dtype(), {channels});
  for (const auto& [name, tensor] : operands.gradients) check_gradient(operation, name, tensor, x.dtype(), {channels});
}

void no_backend(std::string_view operation, const Stream& stream) {
  check_failed("backend", fmt::format("{}: this program has no kernel for stream {} on {}", operation, stream.name(),
                                      stream.device().description()));
}

}  // namespace strake::kernels
