#include "kernels/layer_norm.h"

#include "kernels/launch.h"

namespace strake::kernels {

void layer_norm_forward(Stream& stream, Label label, const LayerNormForward& a) {
  constexpr std::string_view kName = "layer_norm_forward";
  check_leading_operand(kName, "x", a.x, 2);
  const std::int64_t rows = a.x.size(0), channels = a.x.size(1);
  check_operand(kName, "y", a.y, a.x.dtype(), {rows, channels});
  check_operand(kName, "mean", a.mean, stats_dtype(a.x.dtype()), {rows});
  check_operand(kName, "rstd", a.rstd, stats_dtype(a.x.dtype()), {rows});
  check_operand(kName, "weight", a.weight, a.x.dtype(), {channels});
  check_operand(kName, "bias", a.bias, a.x.dtype(), {channels});

  const Tensor reads[] = {a.x, a.weight, a.bias};
  const Tensor writes[] = {a.y, a.mean, a.rstd};
  launch(stream, {.label = label, .kind = kName, .reads = reads, .writes = writes}, a);
}

void residual_layer_norm_forward(Stream& stream, Label label, const ResidualLayerNormForward& a) {
  constexpr std::string_view kName = "residual_layer_norm_forward";
  check_leading_operand(kName, "x", a.x, 2);
  const std::int64_t rows = a.x.size(0), channels = a.x.size(1);
  check_operand(kName, "x_out", a.x_out, a.x.dtype(), {rows, channels});
  check_operand(kName, "y", a.y, a.x.dtype(), {rows, channels});
  check_operand(kName, "mean", a.mean, stats_dtype(a.x.dtype()), {rows});
  check_operand(kName, "rstd", a.rstd, stats_dtype(a.x.dtype()), {rows});
  check_operand(kName, "delta", a.delta, a.x.dtype(), {rows, channels});
  check_operand(kName, "weight", a.weight, a.x.dtype(), {channels});
  check_operand(kName, "bias", a.bias, a.x.dtype(), {channels});

  const Tensor reads[] = {a.x, a.delta, a.weight, a.bias};
  const Tensor writes[] = {a.x_out, a.y, a.mean, a.rstd};
  launch(stream, {.label = label, .kind = kName, .reads = reads, .writes = writes}, a);
}

void layer_norm_backward(Stream& stream, Label label, const LayerNormBackward& a) {
  constexpr std::string_view kName = "layer_norm_backward";
  check_leading_operand(kName, "x", a.x, 2);
  const std::int64_t rows = a.x.size(0), channels = a.x.size(1);
  check_operand(kName, "dx", a.dx, a.x.dtype(), {rows, channels});
  check_gradient(kName, "dweight", a.dweight, a.x.dtype(), {channels});
  check_gradient(kName, "dbias", a.dbias, a.x.dtype(), {channels});
  check_operand(kName, "dy", a.dy, a.x.dtype(), {rows, channels});
  check_operand(kName, "mean", a.mean, stats_dtype(a.x.dtype()), {rows});
  check_operand(kName, "rstd", a.rstd, stats_dtype(a.x.dtype()), {rows});
  check_operand(kName, "weight", a.weight, a.x.dtype(), {channels});

  const bool add = a.accumulate == Accumulate::kAdd;
  const Tensor reads[] = {a.dy, a.x, a.mean, a.rstd, a.weight, a.dx, a.dweight, a.dbias};
  const Tensor writes[] = {a.dx, a.dweight, a.dbias};
  launch(stream, {.label = label, .kind = kName, .reads = std::span(reads).first(add ? 8 : 6), .writes = writes}, a);
}

}  // namespace strake::kernels
