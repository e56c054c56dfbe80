#include "kernels/layer_norm.h"

#include "kernels/cpu/bodies.h"
#include "kernels/cuda/bodies.h"
#include "kernels/launch.h"

namespace strake::kernels {

void layer_norm_forward(Stream& stream, Label label, const Tensor& y, const Tensor& mean, const Tensor& rstd,
                        const Tensor& x, const Tensor& weight, const Tensor& bias) {
  constexpr std::string_view kName = "layer_norm_forward";
  check_leading_operand(kName, "x", x, 2);
  const std::int64_t rows = x.size(0), channels = x.size(1);
  check_operand(kName, "y", y, x.dtype(), {rows, channels});
  check_operand(kName, "mean", mean, stats_dtype(x.dtype()), {rows});
  check_operand(kName, "rstd", rstd, stats_dtype(x.dtype()), {rows});
  check_operand(kName, "weight", weight, x.dtype(), {channels});
  check_operand(kName, "bias", bias, x.dtype(), {channels});

  const Tensor reads[] = {x, weight, bias};
  const Tensor writes[] = {y, mean, rstd};
  launch(
      stream, {.label = label, .kind = kName, .reads = reads, .writes = writes},
      [&] { return cpu::layer_norm_forward(y, mean, rstd, x, weight, bias); },
      [&](auto&) { return cuda::layer_norm_forward(y, mean, rstd, Tensor(), x, Tensor(), weight, bias); });
}

void residual_layer_norm_forward(Stream& stream, Label label, const Tensor& x_out, const Tensor& y, const Tensor& mean,
                                 const Tensor& rstd, const Tensor& x, const Tensor& delta, const Tensor& weight,
                                 const Tensor& bias) {
  constexpr std::string_view kName = "residual_layer_norm_forward";
  check_leading_operand(kName, "x", x, 2);
  const std::int64_t rows = x.size(0), channels = x.size(1);
  check_operand(kName, "x_out", x_out, x.dtype(), {rows, channels});
  check_operand(kName, "y", y, x.dtype(), {rows, channels});
  check_operand(kName, "mean", mean, stats_dtype(x.dtype()), {rows});
  check_operand(kName, "rstd", rstd, stats_dtype(x.dtype()), {rows});
  check_operand(kName, "delta", delta, x.dtype(), {rows, channels});
  check_operand(kName, "weight", weight, x.dtype(), {channels});
  check_operand(kName, "bias", bias, x.dtype(), {channels});

  const Tensor reads[] = {x, delta, weight, bias};
  const Tensor writes[] = {x_out, y, mean, rstd};
  launch(
      stream, {.label = label, .kind = kName, .reads = reads, .writes = writes},
      [&] { return cpu::residual_layer_norm_forward(x_out, y, mean, rstd, x, delta, weight, bias); },
      [&](auto&) { return cuda::layer_norm_forward(y, mean, rstd, x_out, x, delta, weight, bias); });
}

void layer_norm_backward(Stream& stream, Label label, const Tensor& dx, const Tensor& dweight, const Tensor& dbias,
                         const Tensor& dy, const Tensor& x, const Tensor& mean, const Tensor& rstd,
                         const Tensor& weight, Accumulate accumulate) {
  constexpr std::string_view kName = "layer_norm_backward";
  check_leading_operand(kName, "x", x, 2);
  const std::int64_t rows = x.size(0), channels = x.size(1);
  check_operand(kName, "dx", dx, x.dtype(), {rows, channels});
  check_gradient(kName, "dweight", dweight, x.dtype(), {channels});
  check_gradient(kName, "dbias", dbias, x.dtype(), {channels});
  check_operand(kName, "dy", dy, x.dtype(), {rows, channels});
  check_operand(kName, "mean", mean, stats_dtype(x.dtype()), {rows});
  check_operand(kName, "rstd", rstd, stats_dtype(x.dtype()), {rows});
  check_operand(kName, "weight", weight, x.dtype(), {channels});

  const bool add = accumulate == Accumulate::kAdd;
  const Tensor reads[] = {dy, x, mean, rstd, weight, dx, dweight, dbias};
  const Tensor writes[] = {dx, dweight, dbias};
  launch(
      stream, {.label = label, .kind = kName, .reads = std::span(reads).first(add ? 8 : 6), .writes = writes},
      [&] { return cpu::layer_norm_backward(dx, dweight, dbias, dy, x, mean, rstd, weight, add); },
      [&](auto& op) { return cuda::layer_norm_backward(op, dx, dweight, dbias, dy, x, mean, rstd, weight, add); });
}

}  // namespace strake::kernels
