// CRC32C (Castagnoli), the checksum of every durable file. It finds accidents, not attackers.
//
// Pure, any thread, never fails.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace strake {

// Checksum of `bytes`, or of what `previous` covered followed by `bytes`: crc32c(b, crc32c(a)) == crc32c(a + b).
// The nine characters "123456789" give 0xE3069283.
std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t previous = 0);

}  // namespace strake
