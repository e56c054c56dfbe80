#include "runtime/device/scalar_mailbox.h"

#include <atomic>

#include "runtime/device/host_memory.h"

namespace strake {

ScalarMailbox::ScalarMailbox(Arena& host, DType dtype, std::size_t values, std::size_t slots) : values_(values) {
  STRAKE_CHECK(dtype == DType::kF32 || dtype == DType::kF64 || dtype == DType::kI64, "mailboxes hold f32, f64 or i64");
  for (std::size_t i = 0; i < values * slots; ++i) cells_.push_back(Tensor::reserve(host, dtype, {1}));
}

void ScalarMailbox::post(Stream& stream, Label label, std::size_t slot, std::size_t index, const Tensor& scalar) {
  const Tensor& target = cell(slot, index);
  const Tensor source = scalar.reshape({1});
  stream.launch({.label = label, .kind = "publish", .reads = {&source, 1}, .writes = {&target, 1}},
                stream.device().publish_body(target, source));
}

double ScalarMailbox::look(std::size_t slot, std::size_t index) const {
  const Tensor& target = cell(slot, index);
  if (target.dtype() == DType::kF64) {
    return std::atomic_ref(host_span<double>(target)[0]).load(std::memory_order_relaxed);
  }
  return static_cast<double>(std::atomic_ref(host_span<float>(target)[0]).load(std::memory_order_relaxed));
}

std::int64_t ScalarMailbox::look_integer(std::size_t slot, std::size_t index) const {
  return std::atomic_ref(host_span<std::int64_t>(cell(slot, index))[0]).load(std::memory_order_relaxed);
}

}  // namespace strake
