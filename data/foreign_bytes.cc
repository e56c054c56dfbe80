#include "data/foreign_bytes.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace strake::data {
namespace {

using std::string_view_literals::operator""sv;

struct Magic {
  std::string_view bytes;
  std::size_t offset_bytes;
  std::string_view kind;
};

// Each is so long that the first ids of a file are not these bytes by chance.
constexpr Magic kMagics[] = {
    {"\177ELF\1\1\1"sv, 0, "a program"},
    {"\177ELF\2\1\1"sv, 0, "a program"},
    {"\xcf\xfa\xed\xfe"sv, 0, "a program"},
    {"\xca\xfe\xba\xbe\0\0"sv, 0, "a program"},
    {"\x93NUMPY"sv, 0, "a NumPy array with a header (write it with ndarray.tofile)"},
    {"\x89HDF\r\n\x1a\n"sv, 0, "an HDF5 file"},
    {"PK\3\4"sv, 0, "a zip or .npz archive"},
    {"\3757zXZ\0"sv, 0, "an xz file"},
    {"\x28\xb5\x2f\xfd"sv, 0, "a zstd file"},
    {"7z\xbc\xaf\x27\x1c"sv, 0, "a 7z archive"},
    {"1AY&SY"sv, 4, "a bzip2 file"},
    {"ustar"sv, 257, "a tar archive"},
    {"!<arch>\n"sv, 0, "a library"},
    {"%PDF-"sv, 0, "a PDF document"},
    {"\x89PNG\r\n\x1a\n"sv, 0, "a PNG image"},
    {"\xff\xd8\xff\xe0"sv, 0, "a JPEG image"},
    {"\xff\xd8\xff\xe1"sv, 0, "a JPEG image"},
    {"GIF87a"sv, 0, "a GIF image"},
    {"GIF89a"sv, 0, "a GIF image"},
    {"SQLite format 3\0"sv, 0, "an SQLite database"},
    {"PAR1"sv, 0, "a Parquet file"},
    {"ARROW1\0\0"sv, 0, "an Arrow file"},
    {"\0\0\0\0{\""sv, 4, "a safetensors file"},
    {"STRP\1\0\x40\1"sv, 0, "step records of a run"},
};

bool has(std::span<const std::byte> head, const Magic& magic) {
  return head.size() >= magic.offset_bytes + magic.bytes.size() &&
         std::memcmp(head.data() + magic.offset_bytes, magic.bytes.data(), magic.bytes.size()) == 0;
}

unsigned byte_at(std::span<const std::byte> bytes, std::size_t index) {
  return std::to_integer<unsigned>(bytes[index]);
}

// The third byte of a gzip file is its one method, the fourth has three bits that are never set.
bool is_gzip(std::span<const std::byte> head) {
  return head.size() >= 10 && has(head, {"\x1f\x8b\x08"sv, 0, {}}) && byte_at(head, 3) < 0x20 &&
         (byte_at(head, 8) == 0 || byte_at(head, 8) == 2 || byte_at(head, 8) == 4);
}

// "MZ" alone is an id like any other: where it says that a Windows program begins there must be one.
bool is_windows_program(std::span<const std::byte> head) {
  if (head.size() < 0x40 || !has(head, {"MZ"sv, 0, {}})) return false;
  std::uint32_t offset = 0;
  std::memcpy(&offset, head.data() + 0x3c, sizeof offset);
  return offset < head.size() && has(head.subspan(offset), {"PE\0\0"sv, 0, {}});
}

// A byte order mark, and behind it mostly letters of one alphabet. Either alone may be ids.
bool is_utf16(std::span<const std::byte> head) {
  const bool little = has(head, {"\xff\xfe"sv, 0, {}}), big = has(head, {"\xfe\xff"sv, 0, {}});
  if (head.size() < 16 || (!little && !big)) return false;
  std::array<std::size_t, 256> pages{};
  const std::size_t units = std::min<std::size_t>(head.size(), 512) / 2;
  for (std::size_t i = 1; i < units; ++i) ++pages[byte_at(head, 2 * i + (little ? 1 : 0))];
  return *std::max_element(pages.begin(), pages.end()) * 4 >= (units - 1) * 3;
}

// Bytes of the printable character, newline or tab at the start of `bytes` in UTF-8; 0: there is none.
std::size_t printable_utf8(std::span<const std::byte> bytes) {
  const unsigned first = byte_at(bytes, 0);
  if (first < 0x80) return (first >= 0x20 && first < 0x7f) || (first >= '\t' && first <= '\r') ? 1 : 0;
  const std::size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || bytes.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte_at(bytes, i) & 0xc0) != 0x80) return 0;
  }
  return length;
}

double printable_share(std::span<const std::byte> sample) {
  std::size_t printable = 0;
  for (std::size_t i = 0; i < sample.size();) {
    const std::size_t length = printable_utf8(sample.subspan(i));
    printable += length;
    i += std::max<std::size_t>(length, 1);
  }
  return static_cast<double>(printable) / static_cast<double>(sample.size());
}

template <typename Id>
bool are_ids(std::span<const std::byte> sample) {
  constexpr Id kUsual = 1 << 20;       // few vocabularies have more
  constexpr Id kLower = kUsual >> 16;  // else the halves of an id are alike, as in a file of zeros
  Id largest = 0;
  for (std::size_t i = 0; i + sizeof(Id) <= sample.size(); i += sizeof(Id)) {
    Id id = 0;
    std::memcpy(&id, sample.data() + i, sizeof id);
    if (id >= kUsual) return false;
    largest = std::max<Id>(largest, id & 0xffff);
  }
  return largest >= kLower;
}

}  // namespace

bool has_zeros(std::span<const std::byte> sample) {
  const auto zeros = static_cast<std::size_t>(std::count(sample.begin(), sample.end(), std::byte{0}));
  return zeros * 1000 > sample.size();
}

std::string_view foreign_kind(std::span<const std::byte> head) {
  for (const Magic& magic : kMagics) {
    if (has(head, magic)) return magic.kind;
  }
  if (is_gzip(head)) return "a gzip file";
  if (is_windows_program(head)) return "a program";
  if (is_utf16(head)) return "text in UTF-16";
  return {};
}

bool looks_like_text(std::span<const std::byte> sample) {
  constexpr std::size_t kEnoughBytes = 64, kEnoughForDoubtBytes = 128;
  constexpr double kMostlyPrintable = 0.9;  // ids: about 0.4
  if (sample.size() < kEnoughBytes || has_zeros(sample)) return false;
  const double printable = printable_share(sample);
  return printable == 1 || (sample.size() >= kEnoughForDoubtBytes && printable >= kMostlyPrintable);
}

bool looks_like_bytes(std::span<const std::byte> sample) {
  constexpr std::size_t kEnoughBytes = 32 * 1024;  // below, chance alone makes them differ
  // Alike, and far from evenly distributed, for ids that fill all 65,536 are alike too; and of many kinds, as one id
  // over and over may be alike.
  constexpr double kAlike = 0.08, kUneven = 0.25;  // shares of bytes that would have to be others
  constexpr std::size_t kManyKinds = 16;
  if (sample.size() < kEnoughBytes || has_zeros(sample)) return false;
  std::array<double, 256> even{}, odd{};
  for (std::size_t i = 0; i + 1 < sample.size(); i += 2) ++even[byte_at(sample, i)], ++odd[byte_at(sample, i + 1)];
  const double pairs = static_cast<double>(sample.size() / 2);
  double parity = 0, unevenness = 0;
  std::size_t kinds = 0;
  for (std::size_t i = 0; i < even.size(); ++i) {
    parity += std::abs(even[i] - odd[i]) / pairs / 2;
    unevenness += std::abs((even[i] + odd[i]) / pairs / 2 - 1.0 / 256) / 2;
    if (even[i] + odd[i] > 0) ++kinds;
  }
  return parity < kAlike && unevenness > kUneven && kinds >= kManyKinds;
}

std::size_t wide_id_bytes(std::span<const std::byte> sample) {
  constexpr std::size_t kEnoughBytes = 1024;
  if (sample.size() < kEnoughBytes) return 0;
  return are_ids<std::uint64_t>(sample) ? 8 : are_ids<std::uint32_t>(sample) ? 4 : 0;
}

}  // namespace strake::data
