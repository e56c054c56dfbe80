#include "kernels/fingerprint.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu/body.h"

namespace strake::kernels {
namespace reference {

std::uint64_t fingerprint(const std::byte* data, std::int64_t size_bytes) {
  std::uint64_t sum = 0, key = 0;
  for (std::int64_t at = 0; at < size_bytes; at += 8) {
    std::uint64_t z = 0;
    std::memcpy(&z, data + at, static_cast<std::size_t>(std::min<std::int64_t>(8, size_bytes - at)));
    z += key += kFingerprintStep;
    z = (z ^ (z >> 30)) * kFingerprintMix1;
    z = (z ^ (z >> 27)) * kFingerprintMix2;
    sum += z ^ (z >> 31);
  }
  return sum;
}

}  // namespace reference

namespace cpu {

STRAKE_VECTOR_VERSIONS(fingerprint, reference::fingerprint, reference::fingerprint);

}  // namespace cpu

std::uint64_t fingerprint(std::span<const std::byte> bytes) {
  return cpu::fingerprint.in<float>(CpuCode::fastest())(bytes.data(), static_cast<std::int64_t>(bytes.size()));
}

Body Fingerprint::on_cpu(CpuCode code) const {
  return [=, *this](NativeStream) {
    const std::uint64_t sum =
        cpu::fingerprint.in<float>(code)(strake::cpu::bytes(data), static_cast<std::int64_t>(data.extent_bytes()));
    strake::cpu::data<std::int64_t>(out)[0] = static_cast<std::int64_t>(sum);
  };
}

}  // namespace strake::kernels
