// What the bytes of a token file mean: the header and the JSON sidecar, as data. See format.md.
//
// Pure functions of bytes, so that they can be fuzzed. Nothing is allocated from what a header claims.
// Threads: any. Errors: DataError with file, what was expected, what was found, and the remedy; ConfigError where a key
// must say what the file does not.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "data/tokenizer_identity.h"

namespace strake::data {

enum class TokenType : std::uint8_t { kU16 = 2, kU32 = 4 };
constexpr std::size_t size_bytes(TokenType type) { return static_cast<std::size_t>(type); }
constexpr std::string_view name_of(TokenType type) { return type == TokenType::kU16 ? "u16" : "u32"; }

enum class TokenLayout : std::uint8_t {
  kHeader,  // 1024 bytes of header, then tokens: llm.c
  kRaw,     // tokens only: nanoGPT
};
constexpr std::string_view name_of(TokenLayout layout) { return layout == TokenLayout::kHeader ? "header" : "raw"; }

inline constexpr std::size_t kTokenHeaderBytes = 1024;
// Of the file, what parse_token_file needs to see at least.
inline constexpr std::size_t kTokenHeadBytes = 4096;
inline constexpr std::size_t kMaxSidecarBytes = 64 * 1024;
// The count in a header is a signed 32-bit number.
inline constexpr std::int64_t kMaxHeaderTokens = 0x7fffffff;

struct TokenFileInfo {
  TokenType type = TokenType::kU16;
  TokenLayout layout = TokenLayout::kHeader;
  std::int64_t tokens = 0;
  // From the sidecar; without one they are not known.
  std::int64_t vocab = 0;  // every id is below it; 0: not known
  TokenizerIdentity tokenizer;
  std::string source;                   // where the text came from, for people
  std::optional<std::uint32_t> crc32c;  // of the token bytes

  std::size_t data_offset_bytes() const { return layout == TokenLayout::kHeader ? kTokenHeaderBytes : 0; }
};

// `name` is the file's path for messages; `sample` its first min(file_bytes, kTokenHeadBytes) bytes, and behind them
// parts of the rest that begin at multiples of 8; `sidecar` the text of its sidecar, if there is one; `raw_type` what
// its ids are if it does not say that itself (data.dtype; nullopt: such a file is a ConfigError).
TokenFileInfo parse_token_file(std::string_view name, std::span<const std::byte> sample, std::uint64_t file_bytes,
                               std::optional<std::string_view> sidecar, std::optional<TokenType> raw_type);

// REQUIRES: layout kHeader, tokens <= kMaxHeaderTokens.
std::array<std::byte, kTokenHeaderBytes> token_header(const TokenFileInfo& info);
std::string sidecar_json(const TokenFileInfo& info);
// Does this text say that it is the sidecar of a token file, whatever else it says?
bool is_sidecar(std::string_view text);

// What a file is that plainly is no text, as a message says it ("a token file"); empty: it may be text, in any
// encoding. `sample` as in parse_token_file.
std::string_view kind_of_no_text(std::span<const std::byte> sample);

}  // namespace strake::data
