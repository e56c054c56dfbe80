#include "kernels/swiglu.h"

#include <cmath>

#include "kernels/cpu/body.h"

namespace strake::kernels {
namespace reference {

template <typename T>
void swiglu_forward(T* y, const T* x, std::int64_t pairs) {
  for (std::int64_t i = 0; i < pairs; ++i) {
    const T gate = x[2 * i], up = x[2 * i + 1];
    y[i] = gate / (T(1) + std::exp(-gate)) * up;
  }
}

template <typename T>
void swiglu_backward(T* dx, const T* dy, const T* x, std::int64_t pairs) {
  for (std::int64_t i = 0; i < pairs; ++i) {
    const T gate = x[2 * i], up = x[2 * i + 1];
    const T logistic = T(1) / (T(1) + std::exp(-gate));
    dx[2 * i] = dy[i] * up * logistic * (T(1) + gate * (T(1) - logistic));
    dx[2 * i + 1] = dy[i] * gate * logistic;
  }
}

}  // namespace reference

namespace cpu {

STRAKE_VECTOR_CODE(swiglu_forward);
STRAKE_VECTOR_CODE(swiglu_backward);

}  // namespace cpu

Body SwigluForward::on_cpu(CpuCode code) const {
  return cpu::body(x.dtype(),
                   [=, *this]<typename T>() { cpu::swiglu_forward.in<T>(code)(data<T>(y), data<T>(x), y.elems()); });
}

Body SwigluBackward::on_cpu(CpuCode code) const {
  return cpu::body(x.dtype(), [=, *this]<typename T>() {
    cpu::swiglu_backward.in<T>(code)(data<T>(dx), data<T>(dy), data<T>(x), dy.elems());
  });
}

}  // namespace strake::kernels
