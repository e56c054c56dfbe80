// Small functions on strings that several layers need. Pure, thread-safe, never fail.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace strake {

// Insertions, deletions, substitutions and swaps of neighbours that turn `a` into `b`.
std::size_t edit_distance(std::string_view a, std::string_view b);

// The candidate that a person who typed `name` most likely meant; empty if none is near. A candidate
// whose part behind the last dot equals that of `name` counts as near: "steps" means "train.steps".
std::string_view nearest(std::string_view name, std::span<const std::string> candidates);

// "auto, cpu or cuda".
std::string either(std::span<const std::string> words);

// `text` as a JSON string, with its quotes. Bytes that are not valid UTF-8 become U+FFFD.
std::string json_quote(std::string_view text);

// FNV-1a, for names of configurations. Not for files: they have CRC32C.
std::uint64_t hash64(std::string_view text);

}  // namespace strake
