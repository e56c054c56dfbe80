// What the bytes of a file are that is not a token file: text, a program, an archive. A file of bare ids has nothing
// that says so, and text taken for ids trains on pairs of characters without a word.
//
// Pure functions of bytes. Threads: any. Errors: none. They would rather know nothing than refuse token ids.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

namespace strake::data {

// What a file that begins so is, as a message says it ("a gzip file"); empty: nothing known. `head`: its first bytes,
// 512 of them if it has so many.
std::string_view foreign_kind(std::span<const std::byte> head);

// Is more than a thousandth of these bytes zero? Of no text (but in UTF-16 and UTF-32); of ids below 256 the upper byte
// is it, of ids of 32 bits two, and one of 256 bytes of what is packed.
bool has_zeros(std::span<const std::byte> sample);

// For the following: parts of a file that begin at multiples of 8, one behind the other.

// Is it text in UTF-8, or nearly? Most bytes of text print; in ids of 16 or 32 bits they cannot, for the lower byte of
// an id is as good as random. Below 64 bytes the answer is no.
bool looks_like_text(std::span<const std::byte> sample);

// Are these bytes one by one, as text in an old encoding, or compressed? Then those at even and odd places are
// distributed alike, while in ids the upper byte is not the lower one. Below 32 KiB the answer is no.
bool looks_like_bytes(std::span<const std::byte> sample);

// 4 or 8: these are little-endian ids of so many bytes, and not of half as many, of which every second would be small.
// 0: neither; below 1 KiB always.
std::size_t wide_id_bytes(std::span<const std::byte> sample);

}  // namespace strake::data
