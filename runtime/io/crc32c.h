// CRC-32C (Castagnoli), the checksum of every file format here. Hardware speed through ISA-L.
// Threads: any. Errors: none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace strake {

// Of `bytes`, or of what `previous` is the checksum of followed by `bytes`. "123456789" gives 0xE3069283.
std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t previous = 0);

}  // namespace strake
