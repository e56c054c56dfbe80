#include "kernels/matmul.h"

#include "kernels/launch.h"
#include "runtime/base/check.h"

namespace strake::kernels {
namespace {

// The weight, or its gradient, as [outs, ins] in either layout.
struct WeightShape {
  std::int64_t outs, ins;
  WeightShape(const Tensor& weight, WeightLayout layout)
      : outs(weight.size(layout == WeightLayout::kOutIn ? 0 : 1)),
        ins(weight.size(layout == WeightLayout::kOutIn ? 1 : 0)) {}
};

}  // namespace

void linear_forward(Stream& stream, Label label, const LinearForward& a) {
  constexpr std::string_view kName = "linear_forward";
  check_leading_operand(kName, "x", a.x, 2);
  check_leading_operand(kName, "weight", a.weight, 2);
  const auto [outs, ins] = WeightShape(a.weight, a.layout);
  const std::int64_t rows = a.x.size(0);
  check_operand(kName, "weight", a.weight, a.x.dtype(), {a.weight.size(0), a.weight.size(1)});
  check_operand(kName, "x", a.x, a.x.dtype(), {rows, ins});
  check_operand(kName, "y", a.y, a.x.dtype(), {rows, outs});
  if (a.bias.defined()) check_operand(kName, "bias", a.bias, a.x.dtype(), {outs});
  if (a.activated.defined()) check_operand(kName, "activated", a.activated, a.x.dtype(), {rows, outs});

  const Tensor reads[] = {a.x, a.weight, a.bias};
  const Tensor writes[] = {a.y, a.activated};
  launch(stream,
         {.label = label,
          .kind = kName,
          .reads = std::span(reads).first(a.bias.defined() ? 3 : 2),
          .writes = std::span(writes).first(a.activated.defined() ? 2 : 1),
          .flops = matmul_flops(rows, outs, ins)},
         a);
}

void linear_backward_weight(Stream& stream, Label label, const LinearBackwardWeight& a) {
  constexpr std::string_view kName = "linear_backward_weight";
  check_leading_operand(kName, "dy", a.dy, 2);
  check_leading_operand(kName, "x", a.x, 2);
  const std::int64_t rows = a.dy.size(0), outs = a.dy.size(1), ins = a.x.size(1);
  check_operand(kName, "x", a.x, a.dy.dtype(), {rows, ins});
  const bool out_in = a.layout == WeightLayout::kOutIn;
  check_gradient(kName, "dweight", a.dweight, a.dy.dtype(), {out_in ? outs : ins, out_in ? ins : outs});
  if (a.dbias.defined()) check_gradient(kName, "dbias", a.dbias, a.dy.dtype(), {outs});

  const Tensor reads[] = {a.dy, a.x, a.dweight, a.dbias};
  const Tensor writes[] = {a.dweight, a.dbias};
  const std::size_t outputs = a.dbias.defined() ? 2 : 1;
  launch(stream,
         {.label = label,
          .kind = kName,
          .reads = std::span(reads).first(a.accumulate == Accumulate::kAdd ? 2 + outputs : 2),
          .writes = std::span(writes).first(outputs),
          .flops = matmul_flops(rows, outs, ins)},
         a);
}

void linear_backward_input(Stream& stream, Label label, const LinearBackwardInput& a) {
  constexpr std::string_view kName = "linear_backward_input";
  check_leading_operand(kName, "dy", a.dy, 2);
  check_leading_operand(kName, "weight", a.weight, 2);
  const auto [outs, ins] = WeightShape(a.weight, a.layout);
  const std::int64_t rows = a.dy.size(0);
  check_operand(kName, "weight", a.weight, a.dy.dtype(), {a.weight.size(0), a.weight.size(1)});
  check_operand(kName, "dy", a.dy, a.dy.dtype(), {rows, outs});
  check_operand(kName, "dx", a.dx, a.dy.dtype(), {rows, ins});
  if (a.gelu_of.defined()) check_operand(kName, "gelu_of", a.gelu_of, a.dy.dtype(), {rows, ins});
  if (a.dbias.defined()) {
    STRAKE_CHECK(a.gelu_of.defined(), "linear_backward_input: dbias is made with GELU's gradient only");
    check_gradient(kName, "dbias", a.dbias, a.dy.dtype(), {ins});
  }

  const bool adds = a.dbias.defined() && a.accumulate == Accumulate::kAdd;
  const Tensor reads[] = {a.dy, a.weight, a.gelu_of, a.dbias};
  const Tensor writes[] = {a.dx, a.dbias};
  launch(stream,
         {.label = label,
          .kind = kName,
          .reads = std::span(reads).first(adds                  ? 4
                                          : a.gelu_of.defined() ? 3
                                                                : 2),
          .writes = std::span(writes).first(a.dbias.defined() ? 2 : 1),
          .flops = matmul_flops(rows, outs, ins)},
         a);
}

}  // namespace strake::kernels
