#include "runtime/device/scalar_ring.h"

#include <atomic>

#include "runtime/device/host_memory.h"

namespace strake {

ScalarRing::ScalarRing(Arena& host, std::int64_t values, std::size_t slots) {
  for (std::size_t i = 0; i < slots; ++i) slots_.push_back(Tensor::reserve(host, DType::kF64, {values}));
}

void ScalarRing::put(std::size_t slot, std::span<const double> values) {
  const std::span<double> cells = host_span<double>(slots_.at(slot));
  STRAKE_CHECK(values.size() == cells.size(), "a slot of another size");
  auto cell = cells.begin();
  for (const double value : values) std::atomic_ref(*cell++).store(value, std::memory_order_relaxed);
}

void ScalarRing::fetch(Stream& stream, Label label, std::size_t slot, const Tensor& scalars) const {
  const Tensor& source = slots_.at(slot);
  STRAKE_CHECK(scalars.contiguous() && scalars.dtype() == DType::kF64 && scalars.elems() == source.elems(),
               "scalars " + scalars.describe() + " of slots " + source.describe());
  stream.launch({.label = label, .kind = "fetch", .reads = {&source, 1}, .writes = {&scalars, 1}},
                stream.device().fetch_body(scalars, source));
}

}  // namespace strake
