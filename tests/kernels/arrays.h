// Arrays for kernel tests: seeded values, outputs poisoned with NaN between guards, and the error measure.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>
#include <span>
#include <vector>

namespace strake::kernels::testing {

// Random numbers of one test. Prints its seed.
class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {
    std::printf("[   seed   ] %llu\n", static_cast<unsigned long long>(seed));
  }

  std::int64_t integer(std::int64_t lowest, std::int64_t highest) {
    return std::uniform_int_distribution<std::int64_t>(lowest, highest)(engine_);
  }
  // Values that float and double hold alike.
  template <typename T = float>
  std::vector<T> normal(std::int64_t elems, double deviation = 1, double mean = 0) {
    std::normal_distribution<float> distribution(static_cast<float>(mean), static_cast<float>(deviation));
    std::vector<T> values(static_cast<std::size_t>(elems));
    for (T& value : values) value = static_cast<T>(distribution(engine_));
    return values;
  }
  std::vector<std::int32_t> tokens(std::int64_t elems, std::int64_t vocab) {
    std::vector<std::int32_t> values(static_cast<std::size_t>(elems));
    for (auto& value : values) value = static_cast<std::int32_t>(integer(0, vocab - 1));
    return values;
  }
  // Small integers: sums and products of them are exact in any order.
  template <typename T = float>
  std::vector<T> small_integers(std::int64_t elems) {
    std::vector<T> values(static_cast<std::size_t>(elems));
    for (T& value : values) value = static_cast<T>(integer(-4, 4));
    return values;
  }

 private:
  std::mt19937_64 engine_;
};

inline std::vector<double> widened(std::span<const float> values) { return {values.begin(), values.end()}; }

// An output of a kernel under test: NaN everywhere, with guards on both sides that must stay as they are, starting
// `shift` elements behind an address aligned to 64 bytes. Given values, an output that is added to.
class Output {
 public:
  explicit Output(std::int64_t elems, std::int64_t shift = 0)
      : memory_(static_cast<std::size_t>(elems + 2 * kGuard + 16 + shift), std::nanf("")),
        begin_((64 - reinterpret_cast<std::uintptr_t>(memory_.data()) % 64) % 64 / sizeof(float) + kGuard +
               static_cast<std::size_t>(shift)),
        elems_(static_cast<std::size_t>(elems)) {
    std::fill_n(memory_.begin(), begin_, kGuardValue);
    std::fill(memory_.begin() + static_cast<std::ptrdiff_t>(begin_ + elems_), memory_.end(), kGuardValue);
  }
  explicit Output(std::span<const float> values, std::int64_t shift = 0)
      : Output(static_cast<std::int64_t>(values.size()), shift) {
    std::copy(values.begin(), values.end(), data());
  }
  Output(const Output&) = delete;
  ~Output() {
    for (std::size_t i = 0; i < memory_.size(); ++i) {
      if (i >= begin_ && i < begin_ + elems_) continue;
      if (memory_[i] != kGuardValue) {
        ADD_FAILURE() << "wrote outside the output, at element " << static_cast<std::int64_t>(i - begin_) << " of "
                      << elems_;
        return;
      }
    }
  }

  float* data() { return memory_.data() + begin_; }
  operator std::span<const float>() const { return {memory_.data() + begin_, elems_}; }

 private:
  static constexpr std::size_t kGuard = 32;
  static constexpr float kGuardValue = 12345.5f;

  std::vector<float> memory_;
  std::size_t begin_;
  std::size_t elems_;
};

// ||out - ref|| / ||ref||; infinite if anything is not finite.
inline double relative_error(std::span<const float> out, std::span<const double> ref) {
  if (out.size() != ref.size()) return std::numeric_limits<double>::infinity();
  double error = 0;
  double norm = 0;
  for (std::size_t i = 0; i < out.size(); ++i) {
    const double difference = static_cast<double>(out[i]) - ref[i];
    error += difference * difference;
    norm += ref[i] * ref[i];
  }
  if (!std::isfinite(error)) return std::numeric_limits<double>::infinity();
  return norm > 0 ? std::sqrt(error / norm) : std::sqrt(error);
}

inline constexpr double kTolerance = 1e-5;

inline bool equal_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

}  // namespace strake::kernels::testing
