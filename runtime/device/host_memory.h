// Host access to arenas of MemoryKind::kHost (page-locked staging, prefetch slots).
//
// The caller orders the access against copies in flight: synchronize or host_wait before reading what a
// copy wrote or overwriting what a copy reads.
#pragma once

#include <span>

#include "runtime/base/check.h"
#include "runtime/device/tensor.h"

namespace strake {

template <typename T>
std::span<T> host_span(const Tensor& tensor) {
  STRAKE_CHECK(tensor.arena().kind() == MemoryKind::kHost, "arena '" + tensor.arena().name() + "' is device memory");
  STRAKE_CHECK(tensor.dtype() == dtype_of<T> && tensor.contiguous(),
               "tensor " + tensor.describe() + " read as another type");
  return {reinterpret_cast<T*>(tensor.address().value), static_cast<std::size_t>(tensor.elems())};
}

inline std::span<std::byte> host_bytes(const Tensor& tensor) {
  STRAKE_CHECK(tensor.arena().kind() == MemoryKind::kHost, "arena '" + tensor.arena().name() + "' is device memory");
  return {reinterpret_cast<std::byte*>(tensor.address().value), tensor.extent_bytes()};
}

}  // namespace strake
