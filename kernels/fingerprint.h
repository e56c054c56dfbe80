// Fingerprint of a tensor's bytes: equal for equal bytes on every device, and cheap enough to compare what several
// ranks should hold alike.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/arguments.h"

namespace strake::kernels {

// The bytes are words of 64 bits, the last one filled up with zero bytes: word i (from 0) has
//   z = word + (i + 1) * kFingerprintStep, mixed as in SplitMix64 (Steele, Lea and Flood 2014),
// and the fingerprint is the sum over words modulo 2^64. Mixing is a bijection, so a word that differs always shows if
// it is the only one; the sum has no order, so any number of threads may add.
inline constexpr std::uint64_t kFingerprintStep = 0x9e3779b97f4a7c15;
inline constexpr std::uint64_t kFingerprintMix1 = 0xbf58476d1ce4e5b9, kFingerprintMix2 = 0x94d049bb133111eb;

// out[0] = fingerprint of `data`.
struct Fingerprint {
  Tensor out;   // i64 [1]
  Tensor data;  // contiguous, any dtype; fastest at a multiple of 16 bytes

  Body on_cpu(CpuCode code) const;
  Body on_cuda(Device& device, Operation& operation) const;
};
void fingerprint(Stream& stream, Label label, const Fingerprint& arguments);
// The same of bytes of the host, at once, by the calling thread.
std::uint64_t fingerprint(std::span<const std::byte> bytes);

}  // namespace strake::kernels
