#include <utility>

#include "kernels/cpu/vector/lanes.h"

namespace strake::kernels::cpu::STRAKE_VECTOR_NAMESPACE {
namespace {

// Of a vector of pairs, as they lie in memory: every first and every second number.
struct Pairs {
  Lanes first, second;
};

template <int... kLane>
Pairs split(Lanes low, Lanes high, std::integer_sequence<int, kLane...>) {
  return {__builtin_shufflevector(low, high, (2 * kLane)...), __builtin_shufflevector(low, high, (2 * kLane + 1)...)};
}
template <int kHalf, int... kLane>
Lanes join(Pairs pairs, std::integer_sequence<int, kLane...>) {
  return __builtin_shufflevector(pairs.first, pairs.second,
                                 (kHalf * kLanes / 2 + kLane / 2 + (kLane % 2 == 0 ? 0 : kLanes))...);
}
constexpr auto kEveryLane = std::make_integer_sequence<int, kLanes>();

Pairs load_pairs(const float* from, All) { return split(load(from), load(from + kLanes), kEveryLane); }
Pairs load_pairs(const float* from, First part) {
  float whole[2 * kLanes] = {};
  __builtin_memcpy(whole, from, static_cast<std::size_t>(2 * part.elems) * sizeof(float));
  return load_pairs(whole, All());
}
void store_pairs(float* to, Pairs pairs, All) {
  store(to, join<0>(pairs, kEveryLane));
  store(to + kLanes, join<1>(pairs, kEveryLane));
}
void store_pairs(float* to, Pairs pairs, First part) {
  float whole[2 * kLanes];
  store_pairs(whole, pairs, All());
  __builtin_memcpy(to, whole, static_cast<std::size_t>(2 * part.elems) * sizeof(float));
}

}  // namespace

void swiglu_forward(float* y, const float* x, std::int64_t pairs) {
  for_lanes(pairs, [&](std::int64_t i, auto part) {
    const auto [gate, up] = load_pairs(x + 2 * i, part);
    store(y + i, gate / (1.0f + exponential(-gate)) * up, part);
  });
}

void swiglu_backward(float* dx, const float* dy, const float* x, std::int64_t pairs) {
  for_lanes(pairs, [&](std::int64_t i, auto part) {
    const auto [gate, up] = load_pairs(x + 2 * i, part);
    const Lanes gradient = load(dy + i, part);
    const Lanes e = exponential(-gate);
    const Lanes logistic = 1.0f / (1.0f + e);
    // The logistic function's slope is logistic * (1 - logistic), and 1 - logistic = e * logistic.
    const Lanes slope = logistic + gate * (logistic * (e * logistic));
    store_pairs(dx + 2 * i, {gradient * up * slope, gradient * (gate * logistic)}, part);
  });
}

}  // namespace strake::kernels::cpu::STRAKE_VECTOR_NAMESPACE
