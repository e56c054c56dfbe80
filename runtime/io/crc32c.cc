#include "runtime/io/crc32c.h"

#include <isa-l/crc.h>

#include <algorithm>

namespace strake {

std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t previous) {
  constexpr std::size_t kMostAtOnce = std::size_t{1} << 30;  // the library takes the length as int
  std::uint32_t state = ~previous;
  while (!bytes.empty()) {
    const std::span<const std::byte> part = bytes.first(std::min(bytes.size(), kMostAtOnce));
    // The library reads only; its signature lacks const.
    auto* data = const_cast<unsigned char*>(reinterpret_cast<const unsigned char*>(part.data()));
    state = crc32_iscsi(data, static_cast<int>(part.size()), state);
    bytes = bytes.subspan(part.size());
  }
  return ~state;
}

}  // namespace strake
