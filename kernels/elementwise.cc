#include "kernels/elementwise.h"

#include <fmt/format.h>

#include <algorithm>

#include "kernels/cpu/bodies.h"
#include "kernels/cuda/bodies.h"
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

void gelu_forward(Stream& stream, Label label, const Tensor& y, const Tensor& x) {
  constexpr std::string_view kName = "gelu_forward";
  check_leading_operand(kName, "x", x, 0);
  check_same(kName, "y", y, x);
  const Tensor reads[] = {x};
  const Tensor writes[] = {y};
  launch(
      stream, {.label = label, .kind = kName, .reads = reads, .writes = writes},
      [&] { return cpu::gelu_forward(y, x); }, [&](auto&) { return cuda::gelu_forward(y, x); });
}

void gelu_backward(Stream& stream, Label label, const Tensor& dx, const Tensor& dy, const Tensor& x) {
  constexpr std::string_view kName = "gelu_backward";
  check_leading_operand(kName, "x", x, 0);
  check_same(kName, "dx", dx, x);
  check_same(kName, "dy", dy, x);
  const Tensor reads[] = {dy, x};
  const Tensor writes[] = {dx};
  launch(
      stream, {.label = label, .kind = kName, .reads = reads, .writes = writes},
      [&] { return cpu::gelu_backward(dx, dy, x); }, [&](auto&) { return cuda::gelu_backward(dx, dy, x); });
}

void add(Stream& stream, Label label, const Tensor& y, const Tensor& a, const Tensor& b) {
  constexpr std::string_view kName = "add";
  check_leading_operand(kName, "a", a, 0);
  check_same(kName, "b", b, a);
  check_same(kName, "y", y, a);
  const Tensor reads[] = {a, b};
  const Tensor writes[] = {y};
  launch(
      stream, {.label = label, .kind = kName, .reads = reads, .writes = writes}, [&] { return cpu::add(y, a, b); },
      [&](auto&) { return cuda::add(y, a, b); });
}

void cast(Stream& stream, Label label, const Tensor& dst, const Tensor& src) {
  constexpr std::string_view kName = "cast";
  STRAKE_CHECK(dst.defined() && src.defined() && dst.contiguous() && src.contiguous() &&
                   std::ranges::equal(dst.shape(), src.shape()),
               fmt::format("cast: {} to {}: shapes must be equal and contiguous", src.describe(), dst.describe()));
  const Tensor reads[] = {src};
  const Tensor writes[] = {dst};
  launch(
      stream, {.label = label, .kind = kName, .reads = reads, .writes = writes},
      [&] {
        Body body = cpu::cast(dst, src);
        STRAKE_CHECK(body, fmt::format("cast: no cast from {} to {}", name_of(src.dtype()), name_of(dst.dtype())));
        return body;
      },
      [&](auto&) { return cuda::cast(dst, src); });
}

}  // namespace strake::kernels
