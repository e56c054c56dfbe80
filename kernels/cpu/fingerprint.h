// Readable reference of kernels/fingerprint.h on plain bytes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace strake::kernels::reference {

std::uint64_t fingerprint(const std::byte* data, std::int64_t size_bytes);

}  // namespace strake::kernels::reference
