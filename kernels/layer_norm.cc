#include "kernels/layer_norm.h"

#include <array>
#include <span>

#include "kernels/launch.h"

namespace strake::kernels {

void layer_norm_forward(Stream& stream, Label label, const LayerNormForward& a) {
  constexpr std::string_view kName = "layer_norm_forward";
  check_row_operands(kName, a.x,
                     {.like_x = {{"y", a.y}},
                      .of_rows = {{"mean", a.mean}, {"rstd", a.rstd}},
                      .of_channels = {{"weight", a.weight}, {"bias", a.bias}}});

  const Tensor reads[] = {a.x, a.weight, a.bias};
  const Tensor writes[] = {a.y, a.mean, a.rstd};
  launch(stream, {.label = label, .kind = kName, .reads = reads, .writes = writes}, a);
}

void residual_layer_norm_forward(Stream& stream, Label label, const ResidualLayerNormForward& a) {
  constexpr std::string_view kName = "residual_layer_norm_forward";
  check_row_operands(kName, a.x,
                     {.like_x = {{"x_out", a.x_out}, {"y", a.y}, {"delta", a.delta}},
                      .of_rows = {{"mean", a.mean}, {"rstd", a.rstd}},
                      .of_channels = {{"weight", a.weight}, {"bias", a.bias}}});

  const Tensor reads[] = {a.x, a.delta, a.weight, a.bias};
  const Tensor writes[] = {a.x_out, a.y, a.mean, a.rstd};
  launch(stream, {.label = label, .kind = kName, .reads = reads, .writes = writes}, a);
}

void layer_norm_backward(Stream& stream, Label label, const LayerNormBackward& a) {
  constexpr std::string_view kName = "layer_norm_backward";
  check_row_operands(kName, a.x,
                     {.like_x = {{"dx", a.dx}, {"dy", a.dy}},
                      .of_rows = {{"mean", a.mean}, {"rstd", a.rstd}},
                      .of_channels = {{"weight", a.weight}},
                      .gradients = {{"dweight", a.dweight}, {"dbias", a.dbias}}});

  const bool sums = a.dx_sums.defined();
  if (sums) check_operand(kName, "dx_sums", a.dx_sums, a.dweight.dtype(), {a.x.size(1)});

  const Tensor writes[] = {a.dx, a.dweight, a.dbias, a.dx_sums};
  std::array<Tensor, 9> reads = {a.dy, a.x, a.mean, a.rstd, a.weight};
  std::size_t read = 5;
  if (a.accumulate_dx == Accumulate::kAdd) reads[read++] = a.dx;
  if (a.accumulate == Accumulate::kAdd) {
    reads[read++] = a.dweight;
    reads[read++] = a.dbias;
    if (sums) reads[read++] = a.dx_sums;
  }
  launch(stream,
         {.label = label,
          .kind = kName,
          .reads = std::span(reads).first(read),
          .writes = std::span(writes).first(sums ? 4 : 3)},
         a);
}

}  // namespace strake::kernels
