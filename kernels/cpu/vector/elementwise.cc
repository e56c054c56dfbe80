#include "kernels/cpu/vector/lanes.h"

namespace strake::kernels::cpu::STRAKE_VECTOR_NAMESPACE {
namespace {

// (1 + tanh u) / 2 = 1 / (1 + e^-2u): the tanh form of GELU is x times a logistic function of
// 2u = 2 sqrt(2 / pi) (x + 0.044715 x^3). It needs one exponential and cancels nothing.
constexpr float kLinear = 1.5957691216057308f;   // 2 sqrt(2 / pi)
constexpr float kCubic = 0.071354816272600242f;  // 0.044715 times that

}  // namespace

void gelu_forward(float* y, const float* x, std::int64_t elems) {
  for_lanes(elems, [&](std::int64_t i, auto part) {
    const Lanes value = load(x + i, part);
    const Lanes e = exponential(-value * (kLinear + kCubic * value * value));
    store(y + i, value / (1.0f + e), part);
  });
}

void gelu_backward(float* dx, const float* dy, const float* x, std::int64_t elems) {
  for_lanes(elems, [&](std::int64_t i, auto part) {
    const Lanes value = load(x + i, part);
    const Lanes square = value * value;
    const Lanes e = exponential(-value * (kLinear + kCubic * square));
    const Lanes logistic = 1.0f / (1.0f + e);
    // The logistic function's slope is logistic * (1 - logistic), and 1 - logistic = e * logistic.
    const Lanes slope = logistic + value * (kLinear + 3 * kCubic * square) * (logistic * (e * logistic));
    store(dx + i, load(dy + i, part) * slope, part);
  });
}

void add(float* y, const float* a, const float* b, std::int64_t elems) {
  for_lanes(elems, [&](std::int64_t i, auto part) { store(y + i, load(a + i, part) + load(b + i, part), part); });
}

}  // namespace strake::kernels::cpu::STRAKE_VECTOR_NAMESPACE
