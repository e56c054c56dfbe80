#include "data/sample_order.h"

#include <array>
#include <bit>

#include "runtime/base/check.h"

namespace strake::data {
namespace {

// The finaliser of SplitMix64 (Steele, Lea and Flood 2014).
constexpr std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// A pseudo-random permutation of [0, 4^half_bits).
class Feistel {
 public:
  Feistel(std::uint64_t seed, std::uint64_t epoch, int half_bits)
      : half_bits_(half_bits), mask_((std::uint64_t{1} << half_bits) - 1) {
    constexpr std::uint64_t kGolden = 0x9e3779b97f4a7c15u;
    std::uint64_t key = mix(seed + kGolden) ^ mix(epoch * kGolden + 1);
    for (std::uint64_t& round_key : round_keys_) round_key = mix(key += kGolden);
  }

  std::uint64_t operator()(std::uint64_t x) const {
    std::uint64_t left = x >> half_bits_;
    std::uint64_t right = x & mask_;
    for (const std::uint64_t round_key : round_keys_) {
      const std::uint64_t next = left ^ (mix(right ^ round_key) & mask_);
      left = right;
      right = next;
    }
    return left << half_bits_ | right;
  }

 private:
  static constexpr int kRounds = 6;
  int half_bits_;
  std::uint64_t mask_;
  std::array<std::uint64_t, kRounds> round_keys_;
};

}  // namespace

SampleOrder::SampleOrder(std::uint64_t seed, std::int64_t sequences, bool shuffled)
    : seed_(seed), sequences_(sequences), shuffled_(shuffled) {
  STRAKE_CHECK(sequences >= 1, "a sample order needs at least one sequence");
}

SampleOrder SampleOrder::shuffled(std::uint64_t seed, std::int64_t sequences) { return {seed, sequences, true}; }
SampleOrder SampleOrder::sequential(std::int64_t sequences) { return {0, sequences, false}; }

std::int64_t SampleOrder::sequence_of(std::int64_t sample) const {
  STRAKE_CHECK(sample >= 0, "sample indices count from 0");
  const std::int64_t position = sample % sequences_;
  if (!shuffled_ || sequences_ == 1) return position;
  const auto size = static_cast<std::uint64_t>(sequences_);
  const int half_bits = (std::bit_width(size - 1) + 1) / 2;
  const Feistel permute(seed_, static_cast<std::uint64_t>(sample / sequences_), half_bits);
  // The network permutes up to 4 * size values: walk its cycle until it is back in range. That permutes [0, size).
  auto x = static_cast<std::uint64_t>(position);
  do {
    x = permute(x);
  } while (x >= size);
  return static_cast<std::int64_t>(x);
}

}  // namespace strake::data
