// One execution of the fuzz tests of token files.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <string_view>

#include "data/token_file_format.h"
#include "runtime/base/error.h"
#include "runtime/io/files.h"

namespace strake::data::fuzz {

// Parses; true if the input was good, false if it was refused. Empty sidecar: none. Aborts if what is accepted breaks a
// promise; lets everything but DataError and, without a type, ConfigError through.
inline bool parse_once(std::string_view file, std::string_view sidecar, std::optional<TokenType> raw_type) {
  try {
    const auto text = sidecar.empty() ? std::nullopt : std::optional(sidecar.substr(0, kMaxSidecarBytes));
    const TokenFileInfo info =
        parse_token_file("tokens.bin", bytes_of(file.substr(0, kTokenHeadBytes)), file.size(), text, raw_type);
    // The claims cover the file exactly.
    const std::size_t claimed =
        info.data_offset_bytes() + static_cast<std::size_t>(info.tokens) * size_bytes(info.type);
    if (info.tokens < 1 || claimed != file.size() || info.vocab < 0 || info.vocab > INT32_MAX) std::abort();
    return true;
  } catch (const DataError&) {
    return false;
  } catch (const ConfigError&) {
    if (raw_type.has_value() || !sidecar.empty()) throw;
    return false;
  }
}

}  // namespace strake::data::fuzz
