// Whether two operands of a collective begin at one place: a piece that lies where it belongs is not moved.
// Threads: pure functions. Errors: none.
#pragma once

#include "runtime/device/arena.h"
#include "runtime/device/tensor.h"

namespace strake::comm {

inline bool same_memory(const Tensor& a, const Tensor& b) {
  return &a.arena() == &b.arena() && a.offset_bytes() == b.offset_bytes();
}

}  // namespace strake::comm
