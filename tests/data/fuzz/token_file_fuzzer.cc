// The parser of token files and sidecars under libFuzzer (clang 16 or newer):
//   cmake -B build/fuzz -DCMAKE_CXX_COMPILER=clang++ -DSTRAKE_SANITIZE=address,undefined -DSTRAKE_ONEDNN=OFF
//   cmake --build build/fuzz --target token_file_fuzzer && build/fuzz/tests/token_file_fuzzer -max_total_time=60
// Input: a flag (0xff: zeros are put in behind 12 bytes of the file, so that a short input reaches what lies behind a
// header; its last bits: data.dtype), two bytes with the size of the sidecar, the sidecar, the file.
#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "tests/data/fuzz/parse_once.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  if (size < 3) return 0;
  const bool padded = bytes[0] == 0xff;
  const std::size_t sidecar_size = std::min<std::size_t>(bytes[1] | std::size_t{bytes[2]} << 8, size - 3);
  const std::string_view rest(reinterpret_cast<const char*>(bytes) + 3, size - 3);
  std::string file(rest.substr(sidecar_size));
  if (padded && file.size() < strake::data::kTokenHeaderBytes) {
    const std::size_t head = std::min<std::size_t>(file.size(), 12);
    file.insert(head, strake::data::kTokenHeaderBytes - head, '\0');
  }
  using strake::data::TokenType;
  const std::optional<TokenType> raw_type = (bytes[0] & 1) == 0   ? std::nullopt
                                            : (bytes[0] & 2) == 0 ? std::optional(TokenType::kU16)
                                                                  : std::optional(TokenType::kU32);
  strake::data::fuzz::parse_once(file, rest.substr(0, sidecar_size), raw_type);
  return 0;
}
