// What cpu/<operation>.cc files are made of: the body that runs a function on plain arrays, and the choice among the
// versions of that function.
//
//   namespace reference { template <typename T> void gelu_forward(T* y, const T* x, std::int64_t elems) {...} }
//   namespace cpu { STRAKE_VECTOR_CODE(gelu_forward); }            // where cpu/vector/<operation>.cc has one too
//
//   Body GeluForward::on_cpu(CpuCode code) const {
//     return cpu::body(x.dtype(), [=, *this]<typename T>() {
//       cpu::gelu_forward.in<T>(code)(data<T>(y), data<T>(x), x.elems());
//     });
//   }
#pragma once

#include <type_traits>
#include <utility>

#include "kernels/cpu/code.h"
#include "runtime/device/cpu/cpu_memory.h"
#include "runtime/device/operation.h"

namespace strake::kernels::cpu {

// A body that runs `run.operator()<T>()` with T the C++ type of `dtype`, f32 or f64.
template <typename Run>
Body body(DType dtype, Run run) {
  if (dtype == DType::kF64) return [run = std::move(run)](NativeStream) { run.template operator()<double>(); };
  return [run = std::move(run)](NativeStream) { run.template operator()<float>(); };
}

// One function on plain arrays: the reference in f64, and every version in f32, by InstructionSet.
template <typename Wide, typename Narrow>
struct Versions {
  Wide* wide;
  Narrow* narrow[4];

  template <typename T>
  auto* in(CpuCode code) const {
    if constexpr (std::is_same_v<T, double>) {
      return wide;
    } else {
      return narrow[static_cast<std::size_t>(code.vector)];
    }
  }
};
template <typename Wide, typename Narrow>
Versions(Wide*, Narrow*, Narrow*, Narrow*, Narrow*) -> Versions<Wide, Narrow>;

}  // namespace strake::kernels::cpu

namespace strake::kernels {
using strake::cpu::data;
}

// In namespace strake::kernels::cpu: `function` has vector code, of the type of `narrow`. The linker finds it, or says
// that it is missing.
#if STRAKE_VECTOR_X86
#define STRAKE_VECTOR_VERSIONS(function, wide, narrow) \
  namespace baseline {                                 \
  std::remove_pointer_t<decltype(&narrow)> function;   \
  }                                                    \
  namespace avx2 {                                     \
  std::remove_pointer_t<decltype(&narrow)> function;   \
  }                                                    \
  namespace avx512 {                                   \
  std::remove_pointer_t<decltype(&narrow)> function;   \
  }                                                    \
  constexpr Versions function { &wide, &narrow, baseline::function, avx2::function, avx512::function }
#else
#define STRAKE_VECTOR_VERSIONS(function, wide, narrow) \
  namespace baseline {                                 \
  std::remove_pointer_t<decltype(&narrow)> function;   \
  }                                                    \
  constexpr Versions function { &wide, &narrow, baseline::function, baseline::function, baseline::function }
#endif
#define STRAKE_VECTOR_CODE(function) \
  STRAKE_VECTOR_VERSIONS(function, reference::function<double>, reference::function<float>)
