#include "kernels/matmul.h"

#include "kernels/cpu/bodies.h"
#include "kernels/cuda/bodies.h"
#include "kernels/launch.h"

namespace strake::kernels {

void linear_forward(Stream& stream, Label label, const Tensor& y, const Tensor& x, const Tensor& weight,
                    const Tensor& bias) {
  constexpr std::string_view kName = "linear_forward";
  check_leading_operand(kName, "x", x, 2);
  check_leading_operand(kName, "weight", weight, 2);
  const std::int64_t rows = x.size(0), ins = x.size(1), outs = weight.size(0);
  check_operand(kName, "weight", weight, x.dtype(), {outs, ins});
  check_operand(kName, "y", y, x.dtype(), {rows, outs});
  if (bias.defined()) check_operand(kName, "bias", bias, x.dtype(), {outs});

  const Tensor reads[] = {x, weight, bias};
  const Tensor writes[] = {y};
  const Operation operation = {.label = label,
                               .kind = kName,
                               .reads = std::span(reads).first(bias.defined() ? 3 : 2),
                               .writes = writes,
                               .flops = matmul_flops(rows, outs, ins)};
  launch(
      stream, operation, [&] { return cpu::linear_forward(y, x, weight, bias); },
      [&](auto& op) { return cuda::linear_forward(stream.device(), op, y, x, weight, bias); });
}

void linear_backward_weight(Stream& stream, Label label, const Tensor& dweight, const Tensor& dbias, const Tensor& dy,
                            const Tensor& x, Accumulate accumulate) {
  constexpr std::string_view kName = "linear_backward_weight";
  check_leading_operand(kName, "dy", dy, 2);
  check_leading_operand(kName, "x", x, 2);
  const std::int64_t rows = dy.size(0), outs = dy.size(1), ins = x.size(1);
  check_operand(kName, "x", x, dy.dtype(), {rows, ins});
  check_gradient(kName, "dweight", dweight, dy.dtype(), {outs, ins});
  if (dbias.defined()) check_gradient(kName, "dbias", dbias, dy.dtype(), {outs});

  const bool add = accumulate == Accumulate::kAdd;
  const Tensor reads[] = {dy, x, dweight, dbias};
  const Tensor writes[] = {dweight, dbias};
  const std::size_t outputs = dbias.defined() ? 2 : 1;
  const Operation operation = {.label = label,
                               .kind = kName,
                               .reads = std::span(reads).first(add ? 2 + outputs : 2),
                               .writes = std::span(writes).first(outputs),
                               .flops = matmul_flops(rows, outs, ins)};
  launch(
      stream, operation, [&] { return cpu::linear_backward_weight(dweight, dbias, dy, x, add); },
      [&](auto& op) { return cuda::linear_backward_weight(stream.device(), op, dweight, dbias, dy, x, add); });
}

void linear_backward_input(Stream& stream, Label label, const Tensor& dx, const Tensor& dy, const Tensor& weight) {
  constexpr std::string_view kName = "linear_backward_input";
  check_leading_operand(kName, "dy", dy, 2);
  check_leading_operand(kName, "weight", weight, 2);
  const std::int64_t rows = dy.size(0), outs = dy.size(1), ins = weight.size(1);
  check_operand(kName, "weight", weight, dy.dtype(), {outs, ins});
  check_operand(kName, "dx", dx, dy.dtype(), {rows, ins});

  const Tensor reads[] = {dy, weight};
  const Tensor writes[] = {dx};
  const Operation operation = {
      .label = label, .kind = kName, .reads = reads, .writes = writes, .flops = matmul_flops(rows, outs, ins)};
  launch(
      stream, operation, [&] { return cpu::linear_backward_input(dx, dy, weight); },
      [&](auto& op) { return cuda::linear_backward_input(stream.device(), op, dx, dy, weight); });
}

}  // namespace strake::kernels
