#include "data/foreign_bytes.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/io/files.h"

namespace strake::data {
namespace {

template <typename Id>
std::string bytes_of_ids(std::size_t count, const std::function<std::uint32_t()>& next) {
  std::string bytes;
  for (std::size_t i = 0; i < count; ++i) {
    const auto id = static_cast<Id>(next());
    bytes.append(reinterpret_cast<const char*>(&id), sizeof id);
  }
  return bytes;
}

// As often as the ids of a tokenizer occur in text: the n-th about 1/n of the time (Zipf).
std::uint32_t zipf(std::mt19937_64& random, std::uint32_t vocab) {
  const double uniform = std::uniform_real_distribution<double>(0, 1)(random);
  return std::min(vocab - 1, static_cast<std::uint32_t>(std::exp(uniform * std::log(vocab))) - 1);
}

constexpr std::size_t kSizes[] = {1, 31, 32, 33, 64, 200, 2048, 16 * 1024, 64 * 1024};

TEST(ForeignBytes, IdsAreNotTakenForText) {
  constexpr std::uint64_t kSeed = 5;
  SCOPED_TRACE(fmt::format("seed {}", kSeed));
  std::mt19937_64 random(kSeed);
  for (const std::uint32_t vocab : {2u, 60u, 128u, 256u, 257u, 1'000u, 8'000u, 32'000u, 50'257u, 65'536u}) {
    for (const std::size_t tokens : kSizes) {
      for (int repeat = 0; repeat < (tokens < 1000 ? 50 : 1); ++repeat) {
        const auto check = [&](std::string_view bytes, std::string_view what) {
          EXPECT_FALSE(looks_like_text(bytes_of(bytes))) << what << " of " << vocab << ", " << tokens << " tokens";
          EXPECT_FALSE(looks_like_bytes(bytes_of(bytes))) << what << " of " << vocab << ", " << tokens << " tokens";
          EXPECT_EQ(foreign_kind(bytes_of(bytes)), "") << what << " of " << vocab << ", " << tokens << " tokens";
        };
        // Frequent ids are low (GPT-2's), or anywhere.
        const std::string low = bytes_of_ids<std::uint16_t>(tokens, [&] { return zipf(random, vocab); });
        const std::string anywhere =
            bytes_of_ids<std::uint16_t>(tokens, [&] { return zipf(random, vocab) * 40'503u % vocab; });
        const std::string even =
            bytes_of_ids<std::uint16_t>(tokens, [&] { return static_cast<std::uint32_t>(random() % vocab); });
        const std::string wide = bytes_of_ids<std::uint32_t>(tokens, [&] { return zipf(random, vocab * 3); });
        check(low, "low u16");
        check(anywhere, "u16");
        check(even, "even u16");
        check(wide, "u32");
        const std::string wider = bytes_of_ids<std::uint64_t>(tokens, [&] { return zipf(random, vocab * 3); });
        check(wider, "u64");
        for (const std::string& narrow : {low, anywhere, even}) {
          EXPECT_EQ(wide_id_bytes(bytes_of(narrow)), 0u) << vocab << ", " << tokens;
        }
        if (vocab >= 256 && tokens >= 256) {
          EXPECT_EQ(wide_id_bytes(bytes_of(wide)), 4u) << vocab << ", " << tokens;
          EXPECT_EQ(wide_id_bytes(bytes_of(wider)), 8u) << vocab << ", " << tokens;
        }
      }
    }
  }
}

std::string repeated(std::string_view text, std::size_t bytes = 100'000) {
  std::string out;
  while (out.size() < bytes) out += text;
  return out;
}

// Text as tokens of one byte, as `strake data prepare` makes them.
TEST(ForeignBytes, ByteTokensAreNotTakenForText) {
  const std::string text = repeated("In the beginning God created the heaven and the earth.\n");
  std::size_t at = 0;
  const auto next = [&] { return static_cast<std::uint32_t>(static_cast<unsigned char>(text[at++])); };
  for (const std::string& tokens :
       {bytes_of_ids<std::uint16_t>(50'000, next), bytes_of_ids<std::uint32_t>(50'000, next)}) {
    EXPECT_FALSE(looks_like_text(bytes_of(tokens)));
    EXPECT_FALSE(looks_like_bytes(bytes_of(tokens)));
    EXPECT_EQ(foreign_kind(bytes_of(tokens)), "");
  }
}

TEST(ForeignBytes, DegenerateIdsAreNotTakenForText) {
  for (const std::string& bytes : {std::string(100'000, '\0'), repeated(std::string_view("\1\0", 2)),
                                   std::string(100'000, '\xff'), repeated(std::string_view("\0\1\2\3\4\5\6\7", 8))}) {
    EXPECT_FALSE(looks_like_text(bytes_of(bytes)));
    EXPECT_FALSE(looks_like_bytes(bytes_of(bytes)));
    EXPECT_EQ(wide_id_bytes(bytes_of(bytes)), 0u);
  }
}

TEST(ForeignBytes, KnowsTextOfManyKinds) {
  const std::pair<const char*, std::string> texts[] = {
      {"English", "And the earth was without form, and void; and darkness was upon the face of the deep.\r\n"},
      {"Greek", "Ἐν ἀρχῇ ἦν ὁ λόγος, καὶ ὁ λόγος ἦν πρὸς τὸν θεόν, καὶ θεὸς ἦν ὁ λόγος.\n"},
      {"Russian", "В начале сотворил Бог небо и землю. Земля же была безвидна и пуста.\n"},
      {"Chinese", "起初，神创造天地。地是空虚混沌，渊面黑暗；神的灵运行在水面上。\n"},
      {"emoji", "🎲🎲🎲 no more dice 🚀\n"},
      {"JSON", "{\"text\": \"a \\u00e9 b\", \"id\": 17, \"score\": [0.25, 1e-3]}\n"},
      {"code", "\tfor (int i = 0; i < n; ++i) {\n\t\tsum += x[i] * y[i];  // dot\n\t}\n"},
      {"numbers", "0.1234\t17\t-3.5e-7\n"},
      {"Latin-1",
       "Tout \xe9tait noir, et l'esprit d\xe9j\xe0 pr\xeat \xe0 na\xeetre. Voil\xe0 pourquoi nous sommes ici.\n"},
      {"form feed", "Page 1\f\nPage 2 with some more words in it\n"}};
  for (const auto& [name, text] : texts) {
    EXPECT_TRUE(looks_like_text(bytes_of(repeated(text)))) << name;
    EXPECT_TRUE(looks_like_text(bytes_of(repeated(text, 128)))) << name << ", short";
    EXPECT_TRUE(looks_like_text(bytes_of("x" + repeated(text, 4096)))) << name << ", from the middle";
  }
  EXPECT_TRUE(looks_like_text(bytes_of("\xef\xbb\xbf" + repeated(texts[0].second)))) << "byte order mark";
}

// Encodings that print no UTF-8: known by the missing difference of even and odd bytes, with enough of them.
TEST(ForeignBytes, KnowsTextInOtherEncodings) {
  std::mt19937_64 random(6);
  std::string koi8, two_bytes;
  while (koi8.size() < 128 * 1024) {
    const std::size_t letters = 1 + random() % 11;
    for (std::size_t i = 0; i < letters; ++i)
      koi8.push_back(static_cast<char>(0xc0 + std::min(random() % 32, random() % 32)));
    koi8 += random() % 9 == 0 ? ".\n" : " ";
  }
  while (two_bytes.size() < 128 * 1024) {  // GB 18030, with some ASCII between
    const std::size_t letters = 1 + random() % 20;
    for (std::size_t i = 0; i < letters; ++i) {
      two_bytes.push_back(static_cast<char>(0xb0 + random() % 72));
      two_bytes.push_back(static_cast<char>(0xa1 + random() % 94));
    }
    two_bytes += random() % 3 == 0 ? "\n" : random() % 2 == 0 ? "1" : "25";
  }
  EXPECT_TRUE(looks_like_bytes(bytes_of(koi8)));
  EXPECT_TRUE(looks_like_bytes(bytes_of(two_bytes)));
  EXPECT_FALSE(looks_like_bytes(bytes_of(std::string_view(koi8).substr(0, 8 * 1024)))) << "too little to tell";
}

TEST(ForeignBytes, KnowsProgramsAndArchives) {
  const std::string rest = repeated(std::string_view("\x12\0\xf4\x01\x33\x07", 6), 600);
  std::string windows = "MZ" + rest, tar = std::string("a.txt\0", 6) + std::string(251, '\0') + "ustar" + rest;
  windows.replace(0x3c, 4, std::string("\x80\0\0\0", 4));
  windows.replace(0x80, 4, std::string("PE\0\0", 4));
  const std::pair<std::string, const char*> files[] = {
      {std::string("\x7f"
                   "ELF\2\1\1\0",
                   8),
       "a program"},
      {windows, "a program"},
      {std::string("\x1f\x8b\x08\x08\x12\x34\x56\x67\x00\x03", 10), "a gzip file"},
      {"PK\x03\x04\x0a", "a zip or .npz archive"},
      {"\x28\xb5\x2f\xfd", "a zstd file"},
      {std::string("\xfd"
                   "7zXZ\0",
                   6),
       "an xz file"},
      {"BZh91AY&SY", "a bzip2 file"},
      {tar, "a tar archive"},
      {"%PDF-1.7\n", "a PDF document"},
      {"\x89PNG\r\n\x1a\n", "a PNG image"},
      {std::string("\x20\x10\0\0\0\0\0\0{\"", 10), "a safetensors file"},
      {std::string("\xff\xfe") + repeated(std::string_view("a\0b\0c\0 \0", 8)), "text in UTF-16"},
      {std::string("\xfe\xff") + repeated(std::string_view("\0a\0b\0c\0 ", 8)), "text in UTF-16"}};
  for (const auto& [head, kind] : files) {
    EXPECT_EQ(foreign_kind(bytes_of(head + rest)), kind);
    EXPECT_EQ(foreign_kind(bytes_of(std::string_view(head).substr(0, 3))), "") << kind << ": cut";
  }
  EXPECT_EQ(foreign_kind({}), "");
  EXPECT_EQ(foreign_kind(bytes_of("MZ" + rest)), "") << "an id like any other";
}

}  // namespace
}  // namespace strake::data
