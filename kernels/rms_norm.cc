#include "kernels/rms_norm.h"

#include <array>
#include <span>

#include "kernels/launch.h"

namespace strake::kernels {

void rms_norm_forward(Stream& stream, Label label, const RmsNormForward& a) {
  constexpr std::string_view kName = "rms_norm_forward";
  check_row_operands(kName, a.x,
                     {.like_x = {{"y", a.y}}, .of_rows = {{"rstd", a.rstd}}, .of_channels = {{"weight", a.weight}}});

  const Tensor reads[] = {a.x, a.weight};
  const Tensor writes[] = {a.y, a.rstd};
  launch(stream, {.label = label, .kind = kName, .reads = reads, .writes = writes}, a);
}

void residual_rms_norm_forward(Stream& stream, Label label, const ResidualRmsNormForward& a) {
  constexpr std::string_view kName = "residual_rms_norm_forward";
  check_row_operands(kName, a.x,
                     {.like_x = {{"x_out", a.x_out}, {"y", a.y}, {"delta", a.delta}},
                      .of_rows = {{"rstd", a.rstd}},
                      .of_channels = {{"weight", a.weight}}});

  const Tensor reads[] = {a.x, a.delta, a.weight};
  const Tensor writes[] = {a.x_out, a.y, a.rstd};
  launch(stream, {.label = label, .kind = kName, .reads = reads, .writes = writes}, a);
}

void rms_norm_backward(Stream& stream, Label label, const RmsNormBackward& a) {
  constexpr std::string_view kName = "rms_norm_backward";
  check_row_operands(kName, a.x,
                     {.like_x = {{"dx", a.dx}, {"dy", a.dy}},
                      .of_rows = {{"rstd", a.rstd}},
                      .of_channels = {{"weight", a.weight}},
                      .gradients = {{"dweight", a.dweight}}});

  const bool sums = a.dx_sums.defined();
  if (sums) check_operand(kName, "dx_sums", a.dx_sums, a.dweight.dtype(), {a.x.size(1)});

  const Tensor writes[] = {a.dx, a.dweight, a.dx_sums};
  std::array<Tensor, 7> reads = {a.dy, a.x, a.rstd, a.weight};
  std::size_t read = 4;
  if (a.accumulate_dx == Accumulate::kAdd) reads[read++] = a.dx;
  if (a.accumulate == Accumulate::kAdd) {
    reads[read++] = a.dweight;
    if (sums) reads[read++] = a.dx_sums;
  }
  launch(stream,
         {.label = label,
          .kind = kName,
          .reads = std::span(reads).first(read),
          .writes = std::span(writes).first(sums ? 3 : 2)},
         a);
}

}  // namespace strake::kernels
