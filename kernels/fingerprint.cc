#include "kernels/fingerprint.h"

#include <fmt/format.h>

#include "kernels/cpu/bodies.h"
#include "kernels/cuda/bodies.h"
#include "kernels/launch.h"
#include "runtime/base/check.h"

namespace strake::kernels {

void fingerprint(Stream& stream, Label label, const Tensor& out, const Tensor& data) {
  constexpr std::string_view kName = "fingerprint";
  check_operand(kName, "out", out, DType::kI64, {1});
  STRAKE_CHECK(data.contiguous() && data.offset_bytes() % 16 == 0,
               fmt::format("fingerprint: data is {} at byte {}", data.describe(), data.offset_bytes()));
  launch(
      stream, {.label = label, .kind = kName, .reads = {&data, 1}, .writes = {&out, 1}},
      [&] { return cpu::fingerprint(out, data); }, [&](auto&) { return cuda::fingerprint(out, data); });
}

}  // namespace strake::kernels
