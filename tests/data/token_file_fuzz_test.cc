// The parser of token files and sidecars against damaged input: every input is read or refused with a DataError,
// never anything else. tests/data/fuzz/token_file_fuzzer.cc does the same, guided by coverage.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "data/data_cursor.h"
#include "data/token_file.h"
#include "runtime/base/error.h"
#include "runtime/io/files.h"
#include "tests/data/fuzz/parse_once.h"
#include "tests/support/scratch_folder.h"

namespace strake::data {
namespace {

#ifdef STRAKE_SANITIZED
constexpr int kExecutions = 20'000;
#else
constexpr int kExecutions = 200'000;
#endif

class Mutator {
 public:
  explicit Mutator(std::uint64_t seed) : random_(seed) {}

  std::size_t below(std::size_t bound) { return std::uniform_int_distribution<std::size_t>(0, bound - 1)(random_); }

  // One to four random edits.
  std::string mutate(std::string text) {
    static constexpr std::string_view kWords[] = {"\"tokens\"",
                                                  "\"version\"",
                                                  "{",
                                                  "}",
                                                  "[",
                                                  "]",
                                                  "\"",
                                                  ":",
                                                  ",",
                                                  "-1",
                                                  "0",
                                                  "1e309",
                                                  "null",
                                                  "true",
                                                  "1.5",
                                                  "\\u0000",
                                                  "\\ud800",
                                                  "\"u32\"",
                                                  "\"raw\"",
                                                  "18446744073709551615",
                                                  "9223372036854775807",
                                                  "4294967296",
                                                  "2147483648",
                                                  "65536",
                                                  "\xff",
                                                  "\"crc32c\":\"00000000\""};
    for (std::size_t edits = 1 + below(4); edits > 0; --edits) {
      const std::size_t at = text.empty() ? 0 : below(text.size());
      switch (below(8)) {
        case 0:
          text.insert(at, 1, static_cast<char>(below(256)));
          break;
        case 1:
          if (!text.empty()) text[at] = static_cast<char>(below(256));
          break;
        case 2:
          if (!text.empty()) text[at] = static_cast<char>(text[at] ^ (1 << below(8)));
          break;
        case 3:
          text.erase(at, 1 + below(16));
          break;
        case 4:
          text.resize(at);
          break;
        case 5:
          text.insert(at, kWords[below(std::size(kWords))]);
          break;
        case 6:
          text.insert(at, text.substr(below(text.size() + 1), below(64)));
          break;
        case 7: {  // a number that is interesting, over four bytes
          static constexpr std::int32_t kNumbers[] = {0, 1, -1, INT32_MIN, INT32_MAX, 20240520, 20240801, 8, 1024, 7};
          const std::int32_t number = kNumbers[below(std::size(kNumbers))];
          if (at + 4 <= text.size()) text.replace(at, 4, reinterpret_cast<const char*>(&number), 4);
          break;
        }
      }
    }
    return text;
  }

 private:
  std::mt19937_64 random_;
};

struct Seed {
  std::string file;
  std::string sidecar;  // empty: none
};

// `head` is the part of the header that means something: the rest of its 1024 bytes is zero.
std::vector<Seed> seeds() {
  TokenFileInfo info;
  info.tokens = 8;
  info.vocab = 300;
  info.tokenizer = {.name = "bytes", .hash = "9c44184b"};
  info.source = "a text, bytes 0 to 8 of 8";
  info.crc32c = 0x12345678;
  std::vector<Seed> all;
  for (const TokenType type : {TokenType::kU16, TokenType::kU32}) {
    info.type = type;
    const std::string tokens(8 * size_bytes(type), '\1');
    info.layout = TokenLayout::kHeader;
    const auto header = token_header(info);
    const std::string with_header = std::string(reinterpret_cast<const char*>(header.data()), header.size()) + tokens;
    all.push_back({with_header, ""});
    all.push_back({with_header, sidecar_json(info)});
    info.layout = TokenLayout::kRaw;
    all.push_back({tokens, ""});
    all.push_back({tokens, sidecar_json(info)});
  }
  return all;
}

TEST(TokenFileFuzz, ParserReadsOrRefuses) {
  constexpr std::uint64_t kSeed = 20240520;
  std::printf("seed %llu, %d executions\n", static_cast<unsigned long long>(kSeed), kExecutions);
  Mutator mutator(kSeed);
  const std::vector<Seed> all = seeds();
  static constexpr std::optional<TokenType> kTypes[] = {std::nullopt, TokenType::kU16, TokenType::kU32};
  int read = 0, refused = 0;
  for (int i = 0; i < kExecutions; ++i) {
    Seed input = all[mutator.below(all.size())];
    const std::size_t which = mutator.below(3);
    if (which != 0) input.file = mutator.mutate(input.file);
    if (which != 1 && !input.sidecar.empty()) input.sidecar = mutator.mutate(input.sidecar);
    SCOPED_TRACE(i);
    try {
      fuzz::parse_once(input.file, input.sidecar, kTypes[i % 3]) ? ++read : ++refused;
    } catch (const std::exception& error) {
      FAIL() << "execution " << i << ": " << error.what();
    }
  }
  // The mutations reach both sides of the checks.
  EXPECT_GT(read, kExecutions / 100);
  EXPECT_GT(refused, kExecutions / 100);
}

TEST(TokenFileFuzz, FilesAreReadOrRefused) {
  constexpr std::uint64_t kSeed = 20240801;
  constexpr int kFiles = kExecutions / 20;
  std::printf("seed %llu, %d executions\n", static_cast<unsigned long long>(kSeed), kFiles);
  const test::ScratchFolder folder;
  Mutator mutator(kSeed);
  const std::vector<Seed> all = seeds();
  PosixFiles files;
  const auto path = folder.path() / "tokens.bin", sidecar_path = folder.path() / "tokens.bin.json";
  const auto write = [&](const std::filesystem::path& to, std::string_view bytes) {
    files.open(to, OpenMode::kReplace)->write(bytes_of(bytes), 0);
  };
  int read = 0, refused = 0;
  for (int i = 0; i < kFiles; ++i) {
    Seed input = all[mutator.below(all.size())];
    input.file = mutator.mutate(input.file);
    if (!input.sidecar.empty() && mutator.below(2) == 0) input.sidecar = mutator.mutate(input.sidecar);
    files.remove(path);  // truncating it instead would make ext4 flush
    files.remove(sidecar_path);
    write(path, input.file);
    if (!input.sidecar.empty()) write(sidecar_path, input.sidecar);
    try {
      TokenFile file(path, TokenType::kU16);
      ASSERT_LE(file.tokens() * 2, static_cast<std::int64_t>(input.file.size()));
      std::vector<std::int32_t> ids(static_cast<std::size_t>(file.tokens()));
      file.read(0, ids);
      for (const std::int32_t id : ids) ASSERT_GE(id, 0);
      file.verify();
      ++read;
    } catch (const DataError&) {
      ++refused;
    }
  }
  EXPECT_GT(read, 0);
  EXPECT_GT(refused, 0);
}

TEST(TokenFileFuzz, CursorsAreReadOrRefused) {
  constexpr std::uint64_t kSeed = 7;
  std::printf("seed %llu, %d executions\n", static_cast<unsigned long long>(kSeed), kExecutions / 4);
  Mutator mutator(kSeed);
  DataCursor cursor{.seed = 1,
                    .next_sample = 2,
                    .sequence = 3,
                    .files = {{.path = "train.bin", .tokens = 4, .crc32c = 5}},
                    .tokenizer = {.name = "bytes", .hash = "9c44184b"}};
  const std::string one = to_json(cursor);
  cursor.files.push_back({.path = "more.bin", .tokens = 6, .crc32c = {}});
  cursor.files.push_back({.path = "most.bin", .tokens = 7, .crc32c = 8});
  const std::string several = to_json(cursor);
  int read = 0, refused = 0;
  for (int i = 0; i < kExecutions / 4; ++i) {
    try {
      const DataCursor back = cursor_from_json(mutator.mutate(i % 2 == 0 ? one : several));
      ASSERT_EQ(cursor_from_json(to_json(back)), back);
      ++read;
    } catch (const DataError&) {
      ++refused;
    }
  }
  EXPECT_GT(read, kExecutions / 400);
  EXPECT_GT(refused, kExecutions / 400);
}

}  // namespace
}  // namespace strake::data
