#include "data/token_file.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "runtime/base/error.h"
#include "runtime/io/crc32c.h"
#include "runtime/io/files.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/thrown_by.h"

namespace strake::data {
namespace {

using test::ScratchFolder;
using test::thrown_by;

void write_file(const std::filesystem::path& path, std::string_view bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  ASSERT_TRUE(file.good()) << path;
}

template <typename Id>
std::string ids(const std::vector<Id>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(Id)};
}
std::string u16(std::size_t count) {
  std::vector<std::uint16_t> values(count);
  std::iota(values.begin(), values.end(), std::uint16_t{0});
  return ids(values);
}
std::string u32(std::size_t count) {
  std::vector<std::uint32_t> values(count);
  std::iota(values.begin(), values.end(), 100'000u);
  return ids(values);
}
std::string header(std::int32_t magic, std::int32_t version, std::int32_t tokens) {
  std::vector<std::int32_t> words(256, 0);
  words[0] = magic;
  words[1] = version;
  words[2] = tokens;
  return ids(words);
}
std::string u16_file(std::size_t count) { return header(20240520, 1, static_cast<std::int32_t>(count)) + u16(count); }
std::string u32_file(std::size_t count) { return header(20240801, 7, static_cast<std::int32_t>(count)) + u32(count); }

// A good sidecar of u16_file(8), with one member replaced, added or (empty value) left out.
std::string sidecar(std::string_view key = "", std::string_view value = "") {
  std::vector<std::pair<std::string, std::string>> members{
      {"format", "\"strake-tokens\""},
      {"version", "1"},
      {"layout", "\"header\""},
      {"dtype", "\"u16\""},
      {"tokens", "8"},
      {"vocab_size", "50257"},
      {"tokenizer", R"({"name": "gpt2", "hash": "abc"})"},
      {"source", "\"a test\""},
      {"crc32c", fmt::format("\"{:08x}\"", crc32c(bytes_of(u16(8))))}};
  bool replaced = key.empty();
  std::string text = "{";
  for (auto& [name, content] : members) {
    if (name == key) content = value, replaced = true;
    if (!content.empty()) text += fmt::format("{}\"{}\": {}", text.size() > 1 ? ", " : "", name, content);
  }
  if (!replaced) text += fmt::format(", \"{}\": {}", key, value);
  return text + "}";
}
std::string raw_sidecar(std::string_view type, std::size_t tokens) {
  return fmt::format(R"({{"format": "strake-tokens", "version": 1, "layout": "raw", "dtype": "{}", "tokens": {}, )"
                     R"("vocab_size": 200000, "tokenizer": {{"name": "unknown", "hash": ""}}, "source": ""}})",
                     type, tokens);
}

std::vector<std::int32_t> read(TokenSource& source, std::int64_t begin, std::size_t count) {
  std::vector<std::int32_t> out(count, -1);
  source.read(begin, out);
  return out;
}

TEST(TokenFile, ReadsWhatLlmCWrites) {
  const ScratchFolder folder;
  write_file(folder.path() / "a.bin", u16_file(1000));
  TokenFile a(folder.path() / "a.bin");
  EXPECT_EQ(a.tokens(), 1000);
  EXPECT_EQ(read(a, 0, 3), (std::vector<std::int32_t>{0, 1, 2}));
  EXPECT_EQ(read(a, 997, 3), (std::vector<std::int32_t>{997, 998, 999}));
  EXPECT_EQ(read(a, 1000, 0), std::vector<std::int32_t>{});
  EXPECT_EQ(a.info().tokenizer, TokenizerIdentity{});
  EXPECT_FALSE(a.info().tokenizer.known());
  EXPECT_EQ(a.info().vocab, 0);
  a.verify();  // nothing to compare with

  write_file(folder.path() / "b.bin", u32_file(1000));
  TokenFile b(folder.path() / "b.bin");
  EXPECT_EQ(b.tokens(), 1000);
  EXPECT_EQ(read(b, 998, 2), (std::vector<std::int32_t>{100'998, 100'999}));
}

TEST(TokenFile, ReadsWhatNanoGptWrites) {
  const ScratchFolder folder;
  write_file(folder.path() / "a.bin", u16(1000));
  TokenFile a(folder.path() / "a.bin", TokenType::kU16);
  EXPECT_EQ(a.tokens(), 1000);
  EXPECT_EQ(read(a, 998, 2), (std::vector<std::int32_t>{998, 999}));

  write_file(folder.path() / "wide.bin", u32(1000));
  TokenFile wide(folder.path() / "wide.bin", TokenType::kU32);
  EXPECT_EQ(wide.tokens(), 1000);
  EXPECT_EQ(read(wide, 998, 2), (std::vector<std::int32_t>{100'998, 100'999}));

  write_file(folder.path() / "b.bin", u32(1000));
  write_file(folder.path() / "b.bin.json", raw_sidecar("u32", 1000));
  TokenFile b(folder.path() / "b.bin");
  EXPECT_EQ(b.tokens(), 1000);
  EXPECT_EQ(b.info().vocab, 200'000);
  EXPECT_EQ(read(b, 998, 2), (std::vector<std::int32_t>{100'998, 100'999}));
  EXPECT_FALSE(b.info().tokenizer.known());
}

// Ids without header and sidecar: somebody must say what they are.
TEST(TokenFile, AsksForTheTypeOfBareIds) {
  const ScratchFolder folder;
  write_file(folder.path() / "a.bin", u16(1000));
  write_file(folder.path() / "b.bin", u32(1000));
  const std::string a = thrown_by<ConfigError>([&] { TokenFile(folder.path() / "a.bin"); });
  EXPECT_NE(a.find("set data.dtype = u16 or u32. If it is text"), std::string::npos) << a;
  const std::string b = thrown_by<ConfigError>([&] { TokenFile(folder.path() / "b.bin"); });
  EXPECT_NE(b.find("set data.dtype = u16 or u32 (they look like u32)"), std::string::npos) << b;
  const std::string wrong = thrown_by<DataError>([&] { TokenFile(folder.path() / "b.bin", TokenType::kU16); });
  EXPECT_NE(wrong.find("data.dtype says u16, but its ids are of 32 bits; set data.dtype = u32"), std::string::npos)
      << wrong;
  write_file(folder.path() / "d.bin", ids(std::vector<std::uint64_t>(200, 50'000)));
  const std::string longs = thrown_by<DataError>([&] { TokenFile(folder.path() / "d.bin", TokenType::kU32); });
  EXPECT_NE(longs.find("expected ids of 16 or 32 bits, found 64"), std::string::npos) << longs;
  // What says it itself is believed.
  write_file(folder.path() / "c.bin", u16_file(1000));
  EXPECT_EQ(TokenFile(folder.path() / "c.bin", TokenType::kU32).info().type, TokenType::kU16);
  write_file(folder.path() / "b.bin.json", raw_sidecar("u32", 1000));
  EXPECT_EQ(TokenFile(folder.path() / "b.bin", TokenType::kU16).info().type, TokenType::kU32);
}

// Nobody's data.dtype makes ids of text, wherever the file is looked at; the line that makes tokens of it works as it
// is.
TEST(TokenFile, RefusesTextWithTheLineThatPreparesIt) {
  const ScratchFolder folder;
  std::string text;
  while (text.size() < 300'000) text += "And God said, Let there be light: and there was light.\n";
  const auto refused = [&](const std::string& name, std::optional<TokenType> type) {
    write_file(folder.path() / name, text);
    return thrown_by<DataError>([&] { TokenFile(folder.path() / name, type); });
  };
  const std::string in = folder.path().string();
  for (const std::optional<TokenType> type : {std::optional<TokenType>(), {TokenType::kU16}, {TokenType::kU32}}) {
    EXPECT_EQ(
        refused("x.txt", type),
        fmt::format("token file \"{0}/x.txt\": expected token ids, found text. Make tokens of it with `strake data "
                    "prepare {0}/x.txt --train {0}/x.train.bin --val {0}/x.val.bin`",
                    in));
  }
  const std::string odd = refused("it's a text", std::nullopt);
  EXPECT_NE(odd.find(fmt::format("prepare '{0}/it'\\''s a text' --train '{0}/it'\\''s a text.train.bin' --val", in)),
            std::string::npos)
      << odd;
  const std::string evil = refused("evil\x1b[2J\n.txt", std::nullopt);
  EXPECT_NE(evil.find("`strake data prepare TEXT --train train.bin --val val.bin`"), std::string::npos) << evil;
  EXPECT_EQ(evil.find('\n'), std::string::npos);
  EXPECT_EQ(evil.find('\x1b'), std::string::npos);
}

// Making tokens of it would not help.
TEST(TokenFile, KnowsASidecarNamedInsteadOfItsFile) {
  const ScratchFolder folder;
  write_file(folder.path() / "a.bin.json", sidecar());
  const std::string file = (folder.path() / "a.bin").string();
  for (const std::optional<TokenType> type : {std::optional<TokenType>(), {TokenType::kU16}}) {
    EXPECT_EQ(
        thrown_by<DataError>([&] { TokenFile(file + ".json", type); }),
        fmt::format("token file \"{0}.json\": expected token ids, found the sidecar of \"{0}\". Name \"{0}\"", file));
  }
  // JSON of somebody else is text.
  write_file(folder.path() / "b.json", sidecar("format", "\"another\""));
  const std::string other = thrown_by<DataError>([&] { TokenFile(folder.path() / "b.json"); });
  EXPECT_NE(other.find("found text"), std::string::npos) << other;
}

TEST(TokenFile, TellsFilesApartByParts) {
  const ScratchFolder folder;
  const auto path = folder.path() / "a.bin";
  const auto print_of = [&](const std::string& bytes) {
    write_file(path, bytes);
    return TokenFile(path, TokenType::kU16).fingerprint();
  };
  // Wherever a short file differs, and in every part of a long one that is looked at: its first and last 16 KiB at
  // least.
  for (const std::size_t tokens : {4u, 65'536u, 400'000u, 400'001u}) {
    const std::string bytes = u16(tokens);
    const std::string print = print_of(bytes);
    EXPECT_EQ(print_of(bytes), print);
    std::vector<std::size_t> places{0, 1, bytes.size() - 1, bytes.size() - 2};
    for (std::size_t i = 0; i < 16'384; i += 1999) {
      places.push_back(std::min(i, bytes.size() - 1));
      places.push_back(bytes.size() - 1 - std::min(i, bytes.size() - 1));
    }
    for (const std::size_t place : places) {
      std::string other = bytes;
      other[place] = static_cast<char>(other[place] ^ 0x10);
      EXPECT_NE(print_of(other), print) << tokens << " tokens, byte " << place;
    }
    EXPECT_NE(print_of(bytes + "ab"), print);
  }
  // A change between the parts is not seen, unless a sidecar's checksum tells.
  std::string long_file = u16_file(400'000);
  const std::string print = print_of(long_file);
  long_file[30'000] ^= 1;
  EXPECT_EQ(print_of(long_file), print);
  const auto with_checksum = [&](std::string_view crc) {
    std::string text = sidecar("tokens", "400000");
    text.replace(text.find("\"crc32c\": \"") + 11, 8, crc);
    write_file(path.string() + ".json", text);
    return print_of(long_file);
  };
  EXPECT_NE(with_checksum("00000001"), print);
  EXPECT_NE(with_checksum("00000001"), with_checksum("00000002"));
  EXPECT_EQ(with_checksum("00000001"), with_checksum("00000001"));
  // Where the file lies is nothing of it.
  std::filesystem::rename(path, folder.path() / "b.bin");
  std::filesystem::rename(path.string() + ".json", folder.path() / "b.bin.json");
  EXPECT_EQ(TokenFile(folder.path() / "b.bin").fingerprint(), with_checksum("00000001"));
}

TEST(TokenFile, LooksForIdsOutOfRangeInParts) {
  const ScratchFolder folder;
  const auto path = folder.path() / "a.bin";
  std::vector<std::uint16_t> tokens(1'000'000);
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<std::uint16_t>(i * 7 % 50'000);
  const auto refused = [&](std::int64_t bad) {
    std::vector<std::uint16_t> with = tokens;
    if (bad >= 0) with[static_cast<std::size_t>(bad)] = 50'257;
    write_file(path, ids(with));
    TokenFile file(path, TokenType::kU16);
    return thrown_by<DataError>([&] { file.require_sampled_ids_below(50'257); });
  };
  EXPECT_EQ(refused(-1), "nothing");
  for (const std::int64_t bad : {0, 8'000, 991'900, 999'999, 141'800}) {
    const std::string message = refused(bad);
    EXPECT_NE(message.find(fmt::format("token {} is id 50257, but the vocabulary has 50257", bad)), std::string::npos)
        << message;
    EXPECT_NE(message.find(path.string()), std::string::npos);
  }
  EXPECT_EQ(refused(70'000), "nothing") << "it is not read as a whole";
}

TEST(TokenFile, KeepsTheTokenizerBeside) {
  const ScratchFolder folder;
  write_file(folder.path() / "a.bin", u16_file(8));
  write_file(folder.path() / "a.bin.json", sidecar());
  TokenFile file(folder.path() / "a.bin");
  EXPECT_EQ(file.info().tokenizer, (TokenizerIdentity{.name = "gpt2", .hash = "abc"}));
  EXPECT_EQ(file.info().vocab, 50257);
  EXPECT_EQ(file.info().source, "a test");
  EXPECT_EQ(file.info().crc32c, crc32c(bytes_of(u16(8))));
  file.verify();
  EXPECT_EQ(file.describe(), (folder.path() / "a.bin").string());
}

TEST(TokenFile, ReadsAcrossItsBuffer) {
  const ScratchFolder folder;
  constexpr std::size_t kTokens = 150'000;
  write_file(folder.path() / "a.bin", u32_file(kTokens));
  TokenFile file(folder.path() / "a.bin");
  std::vector<std::int32_t> expected(kTokens - 7);
  std::iota(expected.begin(), expected.end(), 100'005);
  EXPECT_EQ(read(file, 5, kTokens - 7), expected);
}

TEST(TokenFile, VerifyFindsADamagedToken) {
  const ScratchFolder folder;
  std::string bytes = u16_file(8);
  bytes.back() ^= 1;
  write_file(folder.path() / "a.bin", bytes);
  write_file(folder.path() / "a.bin.json", sidecar());
  TokenFile file(folder.path() / "a.bin");
  const std::string message = thrown_by<DataError>([&] { file.verify(); });
  EXPECT_NE(message.find("expected the tokens with CRC-32C"), std::string::npos) << message;
}

TEST(TokenFile, NoticesThatItIsChangedWhileInUse) {
  const ScratchFolder folder;
  const auto path = folder.path() / "a.bin";
  const auto change = [&](const std::function<void()>& how) {
    write_file(path, u16_file(1000));
    TokenFile file(path);
    EXPECT_EQ(read(file, 999, 1).front(), 999);
    how();
    return thrown_by<DataError>([&] { read(file, 990, 10); });
  };
  const std::string cut = change([&] { std::filesystem::resize_file(path, 1024 + 1990); });
  EXPECT_NE(cut.find("truncated while in use"), std::string::npos) << cut;
  const std::string grown = change([&] { std::filesystem::resize_file(path, 5000); });
  EXPECT_NE(grown.find("was changed while in use"), std::string::npos) << grown;
  const std::string rewritten = change([&] {
    std::filesystem::last_write_time(path, std::filesystem::file_time_type::clock::now() + std::chrono::hours(1));
  });
  EXPECT_NE(rewritten.find("was changed while in use"), std::string::npos) << rewritten;
  EXPECT_NE(rewritten.find(path.string()), std::string::npos) << rewritten;
}

TEST(TokenFile, ReplacingTheNameDoesNotDisturbAReader) {
  const ScratchFolder folder;
  const auto path = folder.path() / "a.bin";
  write_file(path, u16_file(1000));
  TokenFile file(path);
  write_file(folder.path() / "b.bin", u16_file(10));
  std::filesystem::rename(folder.path() / "b.bin", path);
  EXPECT_EQ(read(file, 999, 1).front(), 999);
}

TEST(TokenFile, RefusesWhatIsNoFile) {
  const ScratchFolder folder;
  const auto open = [&](const std::string& name) {
    return thrown_by<DataError>([&] { TokenFile(folder.path() / name, TokenType::kU16); });
  };
  EXPECT_NE(open("missing.bin").find("there is no such file"), std::string::npos);
  std::filesystem::create_directory(folder.path() / "folder");
  EXPECT_NE(open("folder").find("found a folder. Name the files in it, as in"), std::string::npos);
  ASSERT_EQ(::mkfifo((folder.path() / "pipe").c_str(), 0600), 0);
  EXPECT_NE(open("pipe").find("expected a regular file"), std::string::npos);  // and does not wait for a writer
  std::filesystem::create_symlink("nowhere", folder.path() / "link");
  EXPECT_NE(open("link").find("there is no such file"), std::string::npos);
  write_file(folder.path() / "plain", u16(10));
  EXPECT_NE(open("plain/a.bin").find("Not a directory"), std::string::npos);
  EXPECT_NE(thrown_by<DataError>([] { TokenFile("/dev/null"); }).find("expected a regular file"), std::string::npos);
  write_file(folder.path() / "b.bin", u16(10));
  std::filesystem::create_directory(folder.path() / "b.bin.json");
  EXPECT_NE(open("b.bin").find("sidecar"), std::string::npos);
  write_file(folder.path() / "c.bin", u16(10));
  ASSERT_EQ(::mkfifo((folder.path() / "c.bin.json").c_str(), 0600), 0);
  EXPECT_NE(open("c.bin").find("expected a regular file"), std::string::npos);
}

TEST(TokenFile, MessagesDoNotCarryControlCharacters) {
  const ScratchFolder folder;
  const auto path = folder.path() / "evil\x1b[2J\n.bin";
  write_file(path, u16_file(8));
  write_file(path.string() + ".json", sidecar("tokenizer", "\"\\u001b[2J\\n\""));
  const std::string message = thrown_by<DataError>([&] { TokenFile file(path); });
  EXPECT_EQ(message.find('\x1b'), std::string::npos) << message;
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  EXPECT_NE(message.find("tokenizer"), std::string::npos) << message;
}

struct Malformed {
  std::string name;
  std::string file;
  std::optional<std::string> sidecar;
  std::string expected;  // part of the message
};

std::vector<Malformed> malformed_files() {
  const std::string good = u16_file(8);
  const auto none = std::nullopt;
  const std::string text = "In the beginning God created the heaven and the earth. And the earth was without form\n";
  std::string reserved_deep = R"({"format": )" + std::string(10'000, '[') + std::string(10'000, ']') + "}";
  std::string big_endian = good;
  std::reverse(big_endian.begin(), big_endian.begin() + 4);
  return {
      // The file alone.
      {"empty", "", none, "is empty"},
      {"one byte", "a", none, "not a whole number of u16 tokens"},
      {"raw, odd", u16(10) + "x", none, "21 bytes are not a whole number of u16 tokens"},
      {"magic only", good.substr(0, 4), none, "truncated: its header has 1024 bytes, the file 4"},
      {"half a header", good.substr(0, 512), none, "truncated: its header has 1024 bytes, the file 512"},
      {"header but one byte", good.substr(0, 1023), none, "truncated"},
      {"header only", good.substr(0, 1024), none, "8 u16 tokens are 16 bytes, found 0 (truncated)"},
      {"a token short", good.substr(0, good.size() - 2), none, "found 14 (truncated)"},
      {"a byte short", good.substr(0, good.size() - 1), none, "found 15 (truncated)"},
      {"a byte long", good + "x", none, "found 17 (too long)"},
      {"a token long", good + "xy", none, "found 18 (too long)"},
      {"count 0", header(20240520, 1, 0) + u16(8), none, "claims 0 tokens"},
      {"count -1", header(20240520, 1, -1) + u16(8), none, "claims -1 tokens"},
      {"count least", header(20240520, 1, INT32_MIN) + u16(8), none, "claims -2147483648 tokens"},
      {"count most", header(20240520, 1, INT32_MAX) + u16(8), none, "2147483647 u16 tokens are 4294967294 bytes"},
      {"count of bytes", header(20240520, 1, 16) + u16(8), none, "16 u16 tokens are 32 bytes, found 16"},
      {"u32 count most", header(20240801, 7, INT32_MAX) + u32(8), none, "2147483647 u32 tokens are 8589934588 bytes"},
      {"u16 in a u32 file", header(20240801, 7, 8) + u16(8), none, "8 u32 tokens are 32 bytes, found 16"},
      {"u32 in a u16 file", header(20240520, 1, 8) + u32(8), none, "8 u16 tokens are 16 bytes, found 32"},
      {"version 0", header(20240520, 0, 8) + u16(8), none, "expected version 1 with magic 20240520, found 0"},
      {"version 2", header(20240520, 2, 8) + u16(8), none, "expected version 1 with magic 20240520, found 2"},
      {"version 7 of u16", header(20240520, 7, 8) + u16(8), none, "found 7"},
      {"version 1 of u32", header(20240801, 1, 8) + u32(8), none, "expected version 7 with magic 20240801, found 1"},
      {"big-endian", big_endian, none, "a big-endian token file"},
      {"llm.c model", header(20240326, 5, 8) + u16(8), none, "an llm.c model checkpoint"},
      {"llm.c state", header(20240327, 2, 8) + u16(8), none, "an llm.c model checkpoint"},
      {"llm.c tokenizer", header(20240328, 2, 8) + u16(8), none, "an llm.c tokenizer"},
      {"text", text, none, "expected token ids, found text. Make tokens of it with `strake data prepare /"},
      {"NumPy", "\x93NUMPY\x01" + u16(20), none, "a NumPy array with a header"},
      {"HDF5", std::string("\x89HDF\r\n\x1a\n") + u16(20), none, "an HDF5 file"},
      {"zip", std::string("PK\x03\x04\x14\x00", 6) + u16(20), none, "a zip or .npz archive"},
      {"gzip", std::string("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03", 10) + u16(20), none, "a gzip file"},
      {"program",
       std::string("\x7f"
                   "ELF\2\1\1\0",
                   8) +
           u16(20),
       none, "found a program. Make tokens of text with"},
      // The sidecar alone.
      {"sidecar empty", good, "", "not valid JSON at byte 1"},
      {"sidecar cut", good, sidecar().substr(0, 50), "not valid JSON"},
      {"sidecar garbage", good, "\xff\xfe\x00garbage", "not valid JSON"},
      {"sidecar array", good, "[1, 2]", "expected a JSON object, found array"},
      {"sidecar number", good, "7", "expected a JSON object, found number"},
      {"sidecar null", good, "null", "expected a JSON object, found null"},
      {"sidecar deep", good, reserved_deep, "nested deeper than"},
      {"sidecar huge", good, "{" + std::string(70'000, ' ') + "}", "expected at most 65536 bytes of JSON"},
      {"sidecar twice", good, sidecar() + sidecar(), "not valid JSON"},
      {"sidecar not UTF-8", good, sidecar("source", "\"\xff\""), "not valid JSON"},
      {"number beyond all", good, sidecar("tokens", "1e999"), "not valid JSON"},
      {"no members", good, "{}", "key \"format\" is missing"},
      {"other format", good, sidecar("format", "\"strake-checkpoint\""), "Not the sidecar of a token file"},
      {"format a number", good, sidecar("format", "1"), "key \"format\": expected a string"},
      {"newer version", good, sidecar("version", "2"), "this program reads version 1, found 2"},
      {"version a string", good, sidecar("version", "\"1\""), "key \"version\": expected a whole number"},
      {"no dtype", good, sidecar("dtype", ""), "key \"dtype\" is missing"},
      {"unknown dtype", good, sidecar("dtype", "\"u64\""), "expected \"u16\" or \"u32\", found \"u64\""},
      {"unknown layout", good, sidecar("layout", "\"npz\""), "expected \"header\" or \"raw\", found \"npz\""},
      {"tokens missing", good, sidecar("tokens", ""), "key \"tokens\" is missing"},
      {"tokens 0", good, sidecar("tokens", "0"), "key \"tokens\": expected a whole number from 1"},
      {"tokens negative", good, sidecar("tokens", "-8"), "found -8"},
      {"tokens a fraction", good, sidecar("tokens", "8.0"), "found 8.0"},
      {"tokens 2^63", good, sidecar("tokens", "9223372036854775808"), "found 9223372036854775808"},
      {"tokens 2^64", good, sidecar("tokens", "18446744073709551616"), "key \"tokens\""},
      {"tokens null", good, sidecar("tokens", "null"), "found null"},
      {"vocab 0", good, sidecar("vocab_size", "0"), "key \"vocab_size\": expected a whole number from 1 to 2147483647"},
      {"vocab 2^31", good, sidecar("vocab_size", "2147483648"), "found 2147483648"},
      {"tokenizer a string", good, sidecar("tokenizer", "\"gpt2\""), "key \"tokenizer\": expected an object"},
      {"tokenizer no hash", good, sidecar("tokenizer", R"({"name": "x"})"), "key \"hash\" is missing"},
      {"tokenizer more", good, sidecar("tokenizer", R"({"name": "x", "hash": "", "a": 1})"), "unknown key \"a\""},
      {"tokenizer long", good,
       sidecar("tokenizer", fmt::format(R"({{"name": "{}", "hash": ""}})", std::string(300, 'x'))),
       "key \"name\": expected a string of at most 256 bytes"},
      {"source long", good, sidecar("source", fmt::format("\"{}\"", std::string(5000, 'x'))), "at most 4096 bytes"},
      {"crc short", good, sidecar("crc32c", "\"1234567\""), "eight lower-case hexadecimal digits"},
      {"crc upper", good, sidecar("crc32c", "\"ABCDEF01\""), "eight lower-case hexadecimal digits"},
      {"crc a number", good, sidecar("crc32c", "12345678"), "eight lower-case hexadecimal digits"},
      {"unknown key", good, sidecar("vocab", "3"), "unknown key \"vocab\"; known are: format, version"},
      {"key of two names", good, sidecar("format, version", "3"), "unknown key \"format, version\""},
      {"repeated key", good, sidecar("tokens", "8, \"tokens\": 9"), "key \"tokens\" stands twice"},
      // The two against each other.
      {"other count", good, sidecar("tokens", "9"), "its header says 8 tokens, its sidecar 9"},
      {"other type", good, sidecar("dtype", "\"u32\""), "its header says u16, its sidecar u32"},
      {"promised header", u16(1000), sidecar(), "its sidecar promises a header"},
      {"promised header, short", u16(8), sidecar(), "truncated: its header has 1024 bytes, the file 16"},
      {"raw too short", u16(7), raw_sidecar("u16", 8), "8 u16 tokens are 16 bytes, found 14 (truncated)"},
      {"raw too long", u16(9), raw_sidecar("u16", 8), "8 u16 tokens are 16 bytes, found 18 (too long)"},
      {"raw odd", u16(8) + "x", raw_sidecar("u16", 8), "found 17"},
      {"raw huge claim", u16(8), raw_sidecar("u32", 1'000'000'000'000'000'000), "4000000000000000000 bytes, found 16"},
      {"raw but with header", good, raw_sidecar("u16", 8), "8 u16 tokens are 16 bytes, found 1040"},
  };
}

TEST(TokenFile, RefusesEveryMalformedFile) {
  const ScratchFolder folder;
  const std::vector<Malformed> cases = malformed_files();
  EXPECT_GE(cases.size(), 50u);
  for (const Malformed& bad : cases) {
    SCOPED_TRACE(bad.name);
    const auto path = folder.path() / "tokens.bin";
    const auto sidecar_path = folder.path() / "tokens.bin.json";
    write_file(path, bad.file);
    std::filesystem::remove(sidecar_path);
    if (bad.sidecar) write_file(sidecar_path, *bad.sidecar);
    const std::string message = thrown_by<DataError>([&] { TokenFile file(path, TokenType::kU16); });
    EXPECT_NE(message.find(bad.expected), std::string::npos) << message;
    EXPECT_NE(message.find(path.string()), std::string::npos) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    EXPECT_LT(message.size(), 600u);
  }
}

TEST(TokenFile, RefusesIdsThatNoModelHas) {
  const ScratchFolder folder;
  const auto path = folder.path() / "a.bin";
  write_file(path, header(20240801, 7, 4) + ids(std::vector<std::uint32_t>{1, 2, 0x80000000u, 4}));
  TokenFile file(path);
  EXPECT_EQ(read(file, 0, 2), (std::vector<std::int32_t>{1, 2}));
  const std::string message = thrown_by<DataError>([&] { read(file, 1, 3); });
  EXPECT_NE(message.find("found 2147483648 at token 2"), std::string::npos) << message;
}

TEST(TokenFile, WritesTheHeaderItReads) {
  TokenFileInfo info;
  info.tokens = 8;
  for (const TokenType type : {TokenType::kU16, TokenType::kU32}) {
    info.type = type;
    const auto bytes = token_header(info);
    const std::string expected = (type == TokenType::kU16 ? u16_file(8) : u32_file(8)).substr(0, 1024);
    EXPECT_EQ(std::memcmp(bytes.data(), expected.data(), 1024), 0);
  }
}

}  // namespace
}  // namespace strake::data
