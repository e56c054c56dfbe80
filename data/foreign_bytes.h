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

// Is this part of a text: UTF-8, or any other encoding by bytes? `sample`: parts of a file that begin at even offsets,
// one behind the other. Below 64 bytes the answer is no.
//
// Most bytes of text print, in ids of 16 or 32 bits they cannot: the lower byte of an id is as good as random. Text
// that is neither ASCII nor UTF-8 is known by a second mark: its bytes at even and odd places are distributed alike,
// while in ids the upper byte is not the lower one. No text holds the byte 0; ids below 256 and all of 32 bits do.
bool looks_like_text(std::span<const std::byte> sample);

// Are these ids of 32 bits, little-endian, and not of 16? Then every second number of 16 bits is small. `sample`: as
// above, the offsets multiples of 4.
bool looks_like_u32(std::span<const std::byte> sample);

}  // namespace strake::data
