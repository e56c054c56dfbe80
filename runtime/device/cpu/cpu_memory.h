// On the CPU device, device memory is host memory: this is the one place that says so.
//
// Only bodies of operations on the CPU device may use it (and tests behind a synchronize): anywhere
// else the memory may still be in use by a stream. Included by cpu/, threads/ and mpi/ folders and tests only (lint).
#pragma once

#include "runtime/base/check.h"
#include "runtime/device/tensor.h"

namespace strake::cpu {

template <typename T>
T* data(const Tensor& tensor) {
  STRAKE_CHECK(tensor.dtype() == dtype_of<T>, "tensor " + tensor.describe() + " read as another type");
  return reinterpret_cast<T*>(tensor.address().value);
}

inline std::byte* bytes(const Tensor& tensor) { return reinterpret_cast<std::byte*>(tensor.address().value); }

}  // namespace strake::cpu
