#include "kernels/swiglu.h"

#include "kernels/launch.h"
#include "runtime/base/check.h"

namespace strake::kernels {
namespace {

// Columns of y.
std::int64_t pairs_of(std::string_view operation, const Tensor& x) {
  check_leading_operand(operation, "x", x, 2);
  STRAKE_CHECK(x.size(1) % 2 == 0, std::string(operation) + ": x is " + x.describe() + ", not rows of pairs");
  return x.size(1) / 2;
}

}  // namespace

void swiglu_forward(Stream& stream, Label label, const SwigluForward& a) {
  constexpr std::string_view kName = "swiglu_forward";
  check_operand(kName, "y", a.y, a.x.dtype(), {a.x.size(0), pairs_of(kName, a.x)});

  const Tensor reads[] = {a.x};
  const Tensor writes[] = {a.y};
  launch(stream, {.label = label, .kind = kName, .reads = reads, .writes = writes}, a);
}

void swiglu_backward(Stream& stream, Label label, const SwigluBackward& a) {
  constexpr std::string_view kName = "swiglu_backward";
  check_operand(kName, "dy", a.dy, a.x.dtype(), {a.x.size(0), pairs_of(kName, a.x)});
  check_operand(kName, "dx", a.dx, a.x.dtype(), {a.x.size(0), a.x.size(1)});

  const Tensor reads[] = {a.dy, a.x};
  const Tensor writes[] = {a.dx};
  launch(stream, {.label = label, .kind = kName, .reads = reads, .writes = writes}, a);
}

}  // namespace strake::kernels
