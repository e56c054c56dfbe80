#include "kernels/rms_norm.h"

#include "kernels/launch.h"

namespace strake::kernels {

void rms_norm_forward(Stream& stream, Label label, const RmsNormForward& a) {
  constexpr std::string_view kName = "rms_norm_forward";
  check_leading_operand(kName, "x", a.x, 2);
  const std::int64_t rows = a.x.size(0), channels = a.x.size(1);
  check_operand(kName, "y", a.y, a.x.dtype(), {rows, channels});
  check_operand(kName, "rstd", a.rstd, stats_dtype(a.x.dtype()), {rows});
  check_operand(kName, "weight", a.weight, a.x.dtype(), {channels});

  const Tensor reads[] = {a.x, a.weight};
  const Tensor writes[] = {a.y, a.rstd};
  launch(stream, {.label = label, .kind = kName, .reads = reads, .writes = writes}, a);
}

void residual_rms_norm_forward(Stream& stream, Label label, const ResidualRmsNormForward& a) {
  constexpr std::string_view kName = "residual_rms_norm_forward";
  check_leading_operand(kName, "x", a.x, 2);
  const std::int64_t rows = a.x.size(0), channels = a.x.size(1);
  check_operand(kName, "x_out", a.x_out, a.x.dtype(), {rows, channels});
  check_operand(kName, "y", a.y, a.x.dtype(), {rows, channels});
  check_operand(kName, "rstd", a.rstd, stats_dtype(a.x.dtype()), {rows});
  check_operand(kName, "delta", a.delta, a.x.dtype(), {rows, channels});
  check_operand(kName, "weight", a.weight, a.x.dtype(), {channels});

  const Tensor reads[] = {a.x, a.delta, a.weight};
  const Tensor writes[] = {a.x_out, a.y, a.rstd};
  launch(stream, {.label = label, .kind = kName, .reads = reads, .writes = writes}, a);
}

void rms_norm_backward(Stream& stream, Label label, const RmsNormBackward& a) {
  constexpr std::string_view kName = "rms_norm_backward";
  check_leading_operand(kName, "x", a.x, 2);
  const std::int64_t rows = a.x.size(0), channels = a.x.size(1);
  check_operand(kName, "dx", a.dx, a.x.dtype(), {rows, channels});
  check_gradient(kName, "dweight", a.dweight, a.x.dtype(), {channels});
  check_operand(kName, "dy", a.dy, a.x.dtype(), {rows, channels});
  check_operand(kName, "rstd", a.rstd, stats_dtype(a.x.dtype()), {rows});
  check_operand(kName, "weight", a.weight, a.x.dtype(), {channels});

  const bool add = a.accumulate == Accumulate::kAdd;
  const Tensor reads[] = {a.dy, a.x, a.rstd, a.weight, a.dx, a.dweight};
  const Tensor writes[] = {a.dx, a.dweight};
  launch(stream, {.label = label, .kind = kName, .reads = std::span(reads).first(add ? 6 : 5), .writes = writes}, a);
}

}  // namespace strake::kernels
