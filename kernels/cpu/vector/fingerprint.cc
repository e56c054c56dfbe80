#include "kernels/fingerprint.h"

#include <cstddef>

#include "kernels/cpu/vector/lanes.h"

namespace strake::kernels::cpu::STRAKE_VECTOR_NAMESPACE {

// The sum has no order: the bits are those of the reference.
std::uint64_t fingerprint(const std::byte* data, std::int64_t size_bytes) {
  constexpr std::int64_t kWords = kLanes / 2, kVectorBytes = 8 * kWords;
  using Words = std::uint64_t __attribute__((vector_size(kVectorBytes)));
  const auto mixed = [](auto z) {
    z = (z ^ (z >> 30)) * kFingerprintMix1;
    z = (z ^ (z >> 27)) * kFingerprintMix2;
    return z ^ (z >> 31);
  };
  Words keys{}, sums{};
  for (std::int64_t word = 0; word < kWords; ++word)
    keys[word] = static_cast<std::uint64_t>(word + 1) * kFingerprintStep;
  std::int64_t at = 0;
  for (; at + kVectorBytes <= size_bytes; at += kVectorBytes) {
    Words words;
    __builtin_memcpy(&words, data + at, kVectorBytes);
    sums += mixed(words + keys);
    keys += kWords * kFingerprintStep;
  }
  std::uint64_t sum = 0;
  for (std::int64_t word = 0; word < kWords; ++word) sum += sums[word];
  for (std::uint64_t key = keys[0]; at < size_bytes; at += 8, key += kFingerprintStep) {
    const std::int64_t rest = size_bytes - at < 8 ? size_bytes - at : 8;
    std::uint64_t word = 0;
    __builtin_memcpy(&word, data + at, static_cast<std::size_t>(rest));
    sum += mixed(word + key);
  }
  return sum;
}

}  // namespace strake::kernels::cpu::STRAKE_VECTOR_NAMESPACE
