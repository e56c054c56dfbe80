#include "runtime/io/crc32c.h"

#include <isa-l/crc.h>

#include <algorithm>

namespace strake {

std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t previous) {
  // ISA-L works on the inverted register, takes an int of bytes, and does not write through its pointer.
  constexpr std::size_t kPieceBytes = std::size_t{1} << 30;
  std::uint32_t state = ~previous;
  while (!bytes.empty()) {
    const std::span piece = bytes.first(std::min(bytes.size(), kPieceBytes));
    auto* begin = reinterpret_cast<unsigned char*>(const_cast<std::byte*>(piece.data()));
    state = crc32_iscsi(begin, static_cast<int>(piece.size()), state);
    bytes = bytes.subspan(piece.size());
  }
  return ~state;
}

}  // namespace strake
