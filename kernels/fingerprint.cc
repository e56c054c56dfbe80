#include "kernels/fingerprint.h"

#include <fmt/format.h>

#include "kernels/launch.h"
#include "runtime/base/check.h"

namespace strake::kernels {

void fingerprint(Stream& stream, Label label, const Fingerprint& a) {
  constexpr std::string_view kName = "fingerprint";
  check_operand(kName, "out", a.out, DType::kI64, {1});
  STRAKE_CHECK(a.data.contiguous() && a.data.offset_bytes() % size_bytes(a.data.dtype()) == 0,
               fmt::format("fingerprint: data is {} at byte {}", a.data.describe(), a.data.offset_bytes()));
  launch(stream, {.label = label, .kind = kName, .reads = {&a.data, 1}, .writes = {&a.out, 1}}, a);
}

}  // namespace strake::kernels
