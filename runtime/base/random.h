// Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011). Value i of a stream is a pure function
// of (key, i), so any rank can make any part of a tensor.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <string_view>

namespace strake {

class Philox {
 public:
  explicit constexpr Philox(std::uint64_t key) : key_(key) {}

  // The four 32-bit words of block `counter`.
  constexpr std::array<std::uint32_t, 4> block(std::uint64_t counter) const {
    std::array<std::uint32_t, 4> x{static_cast<std::uint32_t>(counter), static_cast<std::uint32_t>(counter >> 32), 0,
                                   0};
    auto key0 = static_cast<std::uint32_t>(key_), key1 = static_cast<std::uint32_t>(key_ >> 32);
    for (int round = 0; round < 10; ++round) {
      const std::uint64_t product0 = std::uint64_t{0xD2511F53} * x[0];
      const std::uint64_t product1 = std::uint64_t{0xCD9E8D57} * x[2];
      x = {static_cast<std::uint32_t>(product1 >> 32) ^ x[1] ^ key0, static_cast<std::uint32_t>(product1),
           static_cast<std::uint32_t>(product0 >> 32) ^ x[3] ^ key1, static_cast<std::uint32_t>(product0)};
      key0 += 0x9E3779B9;
      key1 += 0xBB67AE85;
    }
    return x;
  }

  // Uniform in (0, 1): value `index` of the stream.
  double uniform(std::uint64_t index) const { return to_unit(block(index / 4)[index % 4]); }

  // Standard normal values 2 * pair and 2 * pair + 1 of the stream: what normal() gives, at less than the cost of two.
  std::array<double, 2> normal_pair(std::uint64_t pair) const {
    const auto words = block(pair);
    const double radius = std::sqrt(-2 * std::log(to_unit(words[0])));
    const double angle = 2 * std::numbers::pi * to_unit(words[1]);
    return {radius * std::cos(angle), radius * std::sin(angle)};
  }

  // Standard normal value `index` of the stream (Box and Muller 1958; two of each block).
  double normal(std::uint64_t index) const {
    const auto words = block(index / 2);
    const double radius = std::sqrt(-2 * std::log(to_unit(words[0])));
    const double angle = 2 * std::numbers::pi * to_unit(words[1]);
    return radius * (index % 2 == 0 ? std::cos(angle) : std::sin(angle));
  }

 private:
  static constexpr double to_unit(std::uint32_t word) { return (static_cast<double>(word) + 0.5) * 0x1p-32; }

  std::uint64_t key_;
};

// A key from a seed and a name: FNV-1a over the name, finished by one SplitMix64 step with the seed.
constexpr std::uint64_t random_key(std::uint64_t seed, std::string_view name) {
  std::uint64_t hash = 0xcbf29ce484222325ull;
  for (const char letter : name) hash = (hash ^ static_cast<unsigned char>(letter)) * 0x100000001b3ull;
  std::uint64_t z = hash + seed * 0x9E3779B97F4A7C15ull + 0x9E3779B97F4A7C15ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

}  // namespace strake
