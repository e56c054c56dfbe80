#include "kernels/elementwise.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "kernels/launch.h"
#include "runtime/base/check.h"

namespace strake::kernels {
namespace {

void check_same(std::string_view operation, std::string_view operand, const Tensor& tensor, const Tensor& leading) {
  STRAKE_CHECK(tensor.defined() && tensor.contiguous() && tensor.dtype() == leading.dtype() &&
                   std::ranges::equal(tensor.shape(), leading.shape()),
               fmt::format("{}: {} is {}, must be {}", operation, operand, tensor.describe(), leading.describe()));
}

}  // namespace

void gelu_forward(Stream& stream, Label label, const GeluForward& a) {
  constexpr std::string_view kName = "gelu_forward";
  check_leading_operand(kName, "x", a.x, 0);
  check_same(kName, "y", a.y, a.x);
  const Tensor reads[] = {a.x};
  const Tensor writes[] = {a.y};
  launch(stream, {.label = label, .kind = kName, .reads = reads, .writes = writes}, a);
}

void gelu_backward(Stream& stream, Label label, const GeluBackward& a) {
  constexpr std::string_view kName = "gelu_backward";
  check_leading_operand(kName, "x", a.x, 0);
  check_same(kName, "dx", a.dx, a.x);
  check_same(kName, "dy", a.dy, a.x);
  if (a.dbias.defined()) {
    check_leading_operand(kName, "x", a.x, 2);
    check_gradient(kName, "dbias", a.dbias, a.x.dtype(), {a.x.size(1)});
  }
  const Tensor reads[] = {a.dy, a.x, a.dbias};
  const Tensor writes[] = {a.dx, a.dbias};
  const bool with_bias = a.dbias.defined(), adds = with_bias && a.accumulate == Accumulate::kAdd;
  launch(stream,
         {.label = label,
          .kind = kName,
          .reads = std::span(reads).first(adds ? 3 : 2),
          .writes = std::span(writes).first(with_bias ? 2 : 1)},
         a);
}

void add(Stream& stream, Label label, const Add& a) {
  constexpr std::string_view kName = "add";
  check_leading_operand(kName, "a", a.a, 0);
  check_same(kName, "b", a.b, a.a);
  check_same(kName, "y", a.y, a.a);
  const Tensor reads[] = {a.a, a.b};
  const Tensor writes[] = {a.y};
  launch(stream, {.label = label, .kind = kName, .reads = reads, .writes = writes}, a);
}

void cast(Stream& stream, Label label, const Cast& a) {
  constexpr std::string_view kName = "cast";
  STRAKE_CHECK(a.dst.defined() && a.src.defined() && a.dst.contiguous() && a.src.contiguous() &&
                   std::ranges::equal(a.dst.shape(), a.src.shape()),
               fmt::format("cast: {} to {}: shapes must be equal and contiguous", a.src.describe(), a.dst.describe()));
  const Tensor reads[] = {a.src};
  const Tensor writes[] = {a.dst};
  launch(stream, {.label = label, .kind = kName, .reads = reads, .writes = writes}, a);
}

}  // namespace strake::kernels
