#include "kernels/rotary.h"

#include <cmath>

#include "kernels/cpu/body.h"

namespace strake::kernels {
namespace reference {

// Heads of y and x begin at y_heads[h], x_heads[h] of their rows of `row` elements: `turned` of them turn, by the
// direction 1 or -1, the others up to `moved` only move. Angles are worked out in double: they are large.
template <typename T>
void rotary(T* y, const std::int64_t* y_heads, const T* x, const std::int64_t* x_heads, std::int64_t turned,
            std::int64_t moved, std::int64_t batch, std::int64_t length, std::int64_t row, std::int64_t pairs,
            const double* frequencies, double direction) {
  for (std::int64_t t = 0; t < length; ++t) {
    for (std::int64_t i = 0; i < pairs; ++i) {
      const double angle = turned > 0 ? static_cast<double>(t) * frequencies[i] : 0;
      const T cosine = static_cast<T>(std::cos(angle)), sine = static_cast<T>(direction * std::sin(angle));
      for (std::int64_t b = 0; b < batch; ++b) {
        const std::int64_t at = (b * length + t) * row + i;
        for (std::int64_t h = 0; h < moved; ++h) {
          const T low = x[at + x_heads[h]], high = x[at + x_heads[h] + pairs];
          y[at + y_heads[h]] = h < turned ? low * cosine - high * sine : low;
          y[at + y_heads[h] + pairs] = h < turned ? high * cosine + low * sine : high;
        }
      }
    }
  }
}

}  // namespace reference

namespace cpu {

STRAKE_VECTOR_CODE(rotary);

}  // namespace cpu

namespace {

std::vector<std::int64_t> heads_of(const QkvLayout& layout, std::int64_t count) {
  std::vector<std::int64_t> begins;
  for (std::int64_t head = 0; head < count; ++head) begins.push_back(layout.begin(head));
  return begins;
}

Body rotary(CpuCode code, const Tensor& to, const QkvLayout& to_layout, const Tensor& from,
            const QkvLayout& from_layout, const std::vector<double>& frequencies, double direction) {
  const std::int64_t turned = frequencies.empty() ? 0 : to_layout.heads + to_layout.kv_heads;
  const std::int64_t moved = to_layout.heads + 2 * to_layout.kv_heads;
  return cpu::body(to.dtype(),
                   [=, to_heads = heads_of(to_layout, moved), from_heads = heads_of(from_layout, moved)]<typename T>() {
                     const bool in_place = data<T>(to) == data<T>(from);
                     cpu::rotary.in<T>(code)(data<T>(to), to_heads.data(), data<T>(from), from_heads.data(), turned,
                                             in_place ? turned : moved, to.size(0), to.size(1), to.size(2),
                                             to_layout.head_size / 2, frequencies.data(), direction);
                   });
}

}  // namespace

Body RotaryForward::on_cpu(CpuCode code) const { return rotary(code, y, y_layout, x, x_layout, frequencies, 1); }
Body RotaryBackward::on_cpu(CpuCode code) const { return rotary(code, dx, x_layout, dy, y_layout, frequencies, -1); }

}  // namespace strake::kernels
