// ByteTokenizer: every byte is a token, its value the id. Pure functions; any thread; never fails to encode.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "data/tokenizer_identity.h"
#include "runtime/base/check.h"

namespace strake::data {

class ByteTokenizer {
 public:
  static constexpr std::int64_t kVocab = 256;

  // The hash is CRC-32C of the 256 byte strings of the vocabulary in order of their ids.
  static TokenizerIdentity identity() { return {.name = "bytes", .hash = "9c44184b"}; }

  // REQUIRES: equal sizes.
  static void encode(std::string_view text, std::span<std::int32_t> ids) {
    STRAKE_CHECK(ids.size() == text.size(), "one id for each byte");
    std::transform(text.begin(), text.end(), ids.begin(), [](char c) { return static_cast<unsigned char>(c); });
  }
  static std::string decode(std::span<const std::int32_t> ids) {
    std::string text;
    text.reserve(ids.size());
    for (const std::int32_t id : ids) {
      STRAKE_CHECK(id >= 0 && id < kVocab, "a byte token is below 256");
      text.push_back(static_cast<char>(id));
    }
    return text;
  }
};

}  // namespace strake::data
