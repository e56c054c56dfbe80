// Amounts of memory as people write them: "80GiB", "1.5 TiB", "80GB".
// Threads: pure functions. Errors: none.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace strake::launch {

// Nothing for any other text, for none at all (0) and for more than an exbibyte.
std::optional<std::uint64_t> memory_size_from(std::string_view text);

// "73.42 GiB", below one "512.00 MiB".
std::string memory_size_text(std::uint64_t size_bytes);

}  // namespace strake::launch
