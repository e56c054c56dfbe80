// QkvLayout: where the heads of queries, keys and values lie in a row of a projection. Attention reads them as strided
// views; the rotary embedding turns them, and moves them from one order to another where views do not suffice.
// Threads: a value.  Errors: a wrong operand is a programmer's error: it aborts.
#pragma once

#include <cstdint>

#include "runtime/base/check.h"
#include "runtime/device/tensor.h"

namespace strake::kernels {

struct QkvLayout {
  enum class Order : std::uint8_t {
    kByKind,   // all query heads, then all key heads, then all value heads
    kByGroup,  // for each key head in turn: the query heads that read it, itself, its value head. Cut between groups,
               // the parts are layouts of their own.
  };

  std::int64_t heads = 0, kv_heads = 0, head_size = 0;
  Order order = Order::kByKind;

  std::int64_t group() const { return heads / kv_heads; }  // query heads that share a key head
  std::int64_t row_elems() const { return (heads + 2 * kv_heads) * head_size; }
  // Where a head begins in the row. Heads are counted query heads first, then key heads, then value heads.
  std::int64_t begin(std::int64_t head) const {
    if (order == Order::kByKind) return head * head_size;
    if (head < heads) return (head / group() * (group() + 2) + head % group()) * head_size;
    const std::int64_t key_or_value = head - heads;
    return (key_or_value % kv_heads * (group() + 2) + group() + key_or_value / kv_heads) * head_size;
  }
  // Do query heads lie at one distance from each other, as a strided view needs it?
  bool has_views() const { return order == Order::kByKind || heads == kv_heads; }

  struct Views {
    Tensor q, k, v;  // [B, T, heads, head_size], [B, T, kv_heads, head_size] twice
  };
  // REQUIRES: has_views(); packed is contiguous, [B, T, row_elems()].
  Views views(const Tensor& packed) const {
    STRAKE_CHECK(packed.rank() == 3 && packed.size(2) == row_elems() && has_views(),
                 "no views of " + packed.describe());
    const auto view = [&](std::int64_t first_head, std::int64_t count) {
      const std::int64_t row = row_elems(), head_stride = (order == Order::kByKind ? 1 : 3) * head_size;
      return packed.slice(2, begin(first_head), row - begin(first_head))
          .with_strides({packed.size(0), packed.size(1), count, head_size},
                        {packed.size(1) * row, row, head_stride, 1});
    };
    return {.q = view(0, heads), .k = view(heads, kv_heads), .v = view(heads + kv_heads, kv_heads)};
  }
};

}  // namespace strake::kernels
