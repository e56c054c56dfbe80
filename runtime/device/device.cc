#include "runtime/device/device.h"

namespace strake {

void Stream::copy(Label label, const Tensor& dst, const Tensor& src) {
  STRAKE_CHECK(dst.contiguous() && src.contiguous() && dst.dtype() == src.dtype() && dst.elems() == src.elems(),
               "copy of " + src.describe() + " to " + dst.describe());
  launch({.label = label, .kind = "copy", .reads = {&src, 1}, .writes = {&dst, 1}}, device().copy_body(dst, src));
}

void Stream::zero(Label label, const Tensor& dst) {
  STRAKE_CHECK(dst.contiguous(), "zero of a strided tensor");
  launch({.label = label, .kind = "zero", .reads = {}, .writes = {&dst, 1}}, device().zero_body(dst));
}

}  // namespace strake
