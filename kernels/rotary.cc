#include "kernels/rotary.h"

#include <cmath>
#include <numbers>

#include "kernels/launch.h"
#include "runtime/base/check.h"

namespace strake::kernels {
namespace {

// Of forward and, with y and x exchanged, of backward.
template <typename Arguments>
void launch_rotary(Stream& stream, Label label, std::string_view name, std::string_view to_name, const Tensor& to,
                   const QkvLayout& to_layout, std::string_view from_name, const Tensor& from,
                   const QkvLayout& from_layout, const Arguments& arguments) {
  check_leading_operand(name, from_name, from, 3);
  check_operand(name, to_name, to, from.dtype(), {from.size(0), from.size(1), to_layout.row_elems()});
  const auto pairs = static_cast<std::int64_t>(arguments.frequencies.size());
  const bool in_place = to.offset_bytes() == from.offset_bytes() && &to.arena() == &from.arena();
  STRAKE_CHECK(from.size(2) == from_layout.row_elems() && to_layout.heads == from_layout.heads &&
                   to_layout.kv_heads == from_layout.kv_heads && to_layout.head_size == from_layout.head_size &&
                   to_layout.heads % to_layout.kv_heads == 0,
               std::string(name) + ": the layouts are not of one set of heads, or not of " + from.describe());
  STRAKE_CHECK(to_layout.head_size % 2 == 0 && (pairs == 0 || pairs == to_layout.head_size / 2),
               std::string(name) + ": a frequency for every pair of a head, or none");
  STRAKE_CHECK(!in_place || to_layout.order == from_layout.order,
               std::string(name) + ": heads cannot change places in place");
  const Tensor reads[] = {from};
  const Tensor writes[] = {to};
  launch(stream, {.label = label, .kind = name, .reads = reads, .writes = writes}, arguments);
}

}  // namespace

std::vector<double> rotary_frequencies(std::int64_t head_size, double theta,
                                       const std::optional<RotaryScaling>& scaling) {
  STRAKE_CHECK(head_size > 0 && head_size % 2 == 0, "rotary embedding pairs the channels of a head");
  std::vector<double> frequencies;
  for (std::int64_t i = 0; i < head_size; i += 2) {
    double frequency = std::pow(theta, -static_cast<double>(i) / static_cast<double>(head_size));
    if (scaling) {
      // Turns within the first training's positions: none of a wave below `low` is left as it was, all of one above
      // `high`.
      const double turns = static_cast<double>(scaling->original_positions) * frequency / (2 * std::numbers::pi);
      const double low = scaling->low_freq_factor, high = scaling->high_freq_factor;
      const double kept = turns < low ? 0 : turns > high ? 1 : (turns - low) / (high - low);
      frequency *= kept + (1 - kept) / scaling->factor;
    }
    frequencies.push_back(frequency);
  }
  return frequencies;
}

void rotary_forward(Stream& stream, Label label, const RotaryForward& a) {
  launch_rotary(stream, label, "rotary_forward", "y", a.y, a.y_layout, "x", a.x, a.x_layout, a);
}

void rotary_backward(Stream& stream, Label label, const RotaryBackward& a) {
  launch_rotary(stream, label, "rotary_backward", "dx", a.dx, a.x_layout, "dy", a.dy, a.y_layout, a);
}

}  // namespace strake::kernels
