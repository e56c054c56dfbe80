// Vectors of f32 for the code in this folder, by the compiler's vector extensions.
//
// Files in this folder are compiled once for each instruction set, each time into a namespace of its own. They must
// emit nothing that another file could share: no inline function or template from outside this folder may be
// used (the linker would keep any one of the copies, perhaps one that this CPU cannot run).
//
// Loads and stores take any address, and every result depends on values and shapes only, never on alignment.
#pragma once

#include <cstdint>

namespace strake::kernels::cpu::STRAKE_VECTOR_NAMESPACE {

inline constexpr std::int64_t kLanes = STRAKE_VECTOR_LANES;  // of the widest register: 4, 8 or 16

using Lanes = float __attribute__((vector_size(sizeof(float) * kLanes)));
using IntLanes = std::int32_t __attribute__((vector_size(sizeof(float) * kLanes)));
using UnsignedLanes = std::uint32_t __attribute__((vector_size(sizeof(float) * kLanes)));
using LanesInMemory = float __attribute__((vector_size(sizeof(float) * kLanes), aligned(alignof(float)), may_alias));

// Which lanes of a vector count: all, or the first few at the end of a row.
struct All {};
struct First {
  std::int64_t elems;
};

inline Lanes broadcast(float value) { return value - Lanes{}; }

inline Lanes load(const float* from) { return *reinterpret_cast<const LanesInMemory*>(from); }
inline Lanes load(const float* from, All) { return load(from); }
// Lanes that do not count are `rest`.
inline Lanes load(const float* from, First part, float rest = 0) {
  Lanes lanes = broadcast(rest);
  __builtin_memcpy(&lanes, from, static_cast<std::size_t>(part.elems) * sizeof(float));
  return lanes;
}
inline Lanes load(const float* from, All, float) { return load(from); }

inline void store(float* to, Lanes lanes) { *reinterpret_cast<LanesInMemory*>(to) = lanes; }
inline void store(float* to, Lanes lanes, All) { store(to, lanes); }
inline void store(float* to, Lanes lanes, First part) {
  __builtin_memcpy(to, &lanes, static_cast<std::size_t>(part.elems) * sizeof(float));
}

// 0, 1, 2, ...
inline IntLanes lane_numbers() {
  IntLanes numbers;
  for (int lane = 0; lane < kLanes; ++lane) numbers[lane] = lane;
  return numbers;
}

// The lanes that count, zero in the others.
inline Lanes keep(Lanes lanes, All) { return lanes; }
inline Lanes keep(Lanes lanes, First part) {
  return lane_numbers() < static_cast<std::int32_t>(part.elems) ? lanes : Lanes{};
}

inline Lanes maximum(Lanes a, Lanes b) { return a > b ? a : b; }

// Pairwise, always in the same order.
inline float sum(Lanes lanes) {
  for (std::int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (std::int64_t lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  }
  return lanes[0];
}
inline float maximum(Lanes lanes) {
  for (std::int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (std::int64_t lane = 0; lane < half; ++lane) {
      lanes[lane] = lanes[lane] > lanes[lane + half] ? lanes[lane] : lanes[lane + half];
    }
  }
  return lanes[0];
}

inline Lanes square_root(Lanes lanes) {
  for (std::int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] = __builtin_sqrtf(lanes[lane]);
  return lanes;
}

// Calls f(first element, which lanes count) for each vector of a row of `elems`.
template <typename F>
inline void for_lanes(std::int64_t elems, F&& f) {
  std::int64_t i = 0;
  for (; i + kLanes <= elems; i += kLanes) f(i, All());
  if (i < elems) f(i, First{elems - i});
}

// e^x with a relative error below 2e-7 where the result is a normal number. Zero below -87.33 (also for
// -infinity), constant above 88.37 (2.37e38, never infinity), NaN for NaN.
inline Lanes exponential(Lanes x) {
  constexpr float kLowest = -87.33f, kHighest = 88.37f;
  constexpr float kLog2E = 1.44269504f;
  // ln 2 in two parts; the first has few enough bits that n * first is exact.
  constexpr float kLn2First = 0.693359375f, kLn2Second = -2.12194440e-4f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, kept in the low bits
  x = x > kHighest ? broadcast(kHighest) : x;
  const Lanes rounded = x * kLog2E + kRound;
  const Lanes n = rounded - kRound;
  const Lanes r = (x - n * kLn2First) - n * kLn2Second;  // |r| <= ln(2) / 2
  // Taylor series to r^7: the first term left out is below 6e-9.
  Lanes p = r * (1.0f / 5040) + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  // 2^n: n stands in the low bits of `rounded`; shifted into the exponent field. Garbage below kLowest.
  const UnsignedLanes power = (reinterpret_cast<UnsignedLanes>(rounded) << 23) + (127u << 23);
  return x < kLowest ? Lanes{} : p * reinterpret_cast<Lanes>(power);
}

}  // namespace strake::kernels::cpu::STRAKE_VECTOR_NAMESPACE
