#include "data/token_file_format.h"

#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <filesystem>

#include "data/foreign_bytes.h"
#include "data/strict_json.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/base/text.h"

namespace strake::data {
namespace {

static_assert(std::endian::native == std::endian::little, "token files are little-endian and read as they lie");

constexpr std::string_view kFormatName = "strake-tokens";
constexpr std::int64_t kFormatVersion = 1;
constexpr std::string_view kPrepareAgain = "Make the file again with `strake data prepare`";

struct HeaderKind {
  std::int32_t magic;
  std::int32_t version;
  TokenType type;
};
constexpr HeaderKind kHeaderKinds[] = {{20240520, 1, TokenType::kU16}, {20240801, 7, TokenType::kU32}};

const HeaderKind* kind_of(std::int32_t magic) {
  for (const HeaderKind& kind : kHeaderKinds) {
    if (kind.magic == magic) return &kind;
  }
  return nullptr;
}

std::int32_t word(std::span<const std::byte> head, std::size_t index) {
  std::int32_t value = 0;
  std::memcpy(&value, head.data() + 4 * index, sizeof value);
  return value;
}

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// For a shell: as it is, if that is safe.
std::string shell_word(std::string_view text) {
  constexpr std::string_view kSafe = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./+,:@%-";
  if (!text.starts_with('-') && text.find_first_not_of(kSafe) == std::string_view::npos) return std::string(text);
  std::string word = text.starts_with('-') ? "'./" : "'";
  for (const char c : text) c == '\'' ? word += "'\\''" : word += c;
  return word + "'";
}

// What makes tokens of the text in this file, beside it.
std::string prepare_command(std::string_view name) {
  const std::string shown = json_quote(name);
  if (shown.find("\\u") != std::string::npos || shown.find("\\n") != std::string::npos) {  // not for a terminal
    return "strake data prepare TEXT --train train.bin --val val.bin";
  }
  const auto output = [&](std::string_view extension) {
    return shell_word(std::filesystem::path(name).replace_extension(extension).string());
  };
  return fmt::format("strake data prepare {} --train {} --val {}", shell_word(name), output("train.bin"),
                     output("val.bin"));
}

// What a sidecar that is named instead of its token file is the sidecar of.
std::string owner_of_sidecar(std::string_view name) {
  constexpr std::string_view kSuffix = ".json";
  return name.ends_with(kSuffix) && name.size() > kSuffix.size()
             ? json_quote(name.substr(0, name.size() - kSuffix.size()))
             : "the token file";
}

std::string_view kind_of_other_file(std::span<const std::byte> sample) {
  if (sample.size() >= 4) {
    const std::int32_t magic = word(sample, 0);
    if (magic == 20240326 || magic == 20240327) return "an llm.c model checkpoint";
    if (magic == 20240328) return "an llm.c tokenizer";
    if (kind_of(static_cast<std::int32_t>(__builtin_bswap32(static_cast<std::uint32_t>(magic)))) != nullptr) {
      return "a big-endian token file";
    }
  }
  return foreign_kind(sample);
}

// A file without header or sidecar has nothing that says it holds tokens: what plainly is something else is refused,
// whatever the user says.
void refuse_foreign(std::string_view name, std::span<const std::byte> sample) {
  if (const std::string_view kind = kind_of_other_file(sample); !kind.empty()) {
    throw DataError(fmt::format(
        "token file {}: expected token ids, found {}. Make tokens of text with `strake data prepare TEXT... "
        "--train train.bin --val val.bin`",
        json_quote(name), kind));
  }
  if (is_sidecar(text_of(sample))) {
    const std::string owner = owner_of_sidecar(name);
    throw DataError(fmt::format("token file {}: expected token ids, found the sidecar of {}. Name {}", json_quote(name),
                                owner, owner));
  }
  const bool text = looks_like_text(sample);
  if (!text && !looks_like_bytes(sample)) return;
  throw DataError(fmt::format("token file {}: expected token ids, found {}. Make tokens of {} with `{}`",
                              json_quote(name), text ? "text" : "single bytes, as of text in an old encoding",
                              text ? "it" : "text", prepare_command(name)));
}

// The type of bare ids, of which `sample` is a part.
TokenType raw_type_of(std::string_view name, std::span<const std::byte> sample, std::optional<TokenType> told) {
  const std::size_t wide_bytes = wide_id_bytes(sample);
  if (wide_bytes == 8) {
    throw DataError(fmt::format("token file {}: expected ids of 16 or 32 bits, found 64. Write them as u16 or u32",
                                json_quote(name)));
  }
  if (!told) {
    throw ConfigError(fmt::format(
        "token file {}: has neither a header nor a sidecar that says what its ids are; set data.dtype = u16 "
        "or u32{}. If it is text, make tokens of it with `{}`",
        json_quote(name), wide_bytes == 4 ? " (they look like u32)" : "", prepare_command(name)));
  }
  if (*told == TokenType::kU16 && wide_bytes == 4) {
    throw DataError(fmt::format("token file {}: data.dtype says u16, but its ids are of 32 bits; set data.dtype = u32",
                                json_quote(name)));
  }
  return *told;
}

void read_sidecar(std::string_view file, std::string_view text, TokenFileInfo& info) {
  const std::string where = fmt::format("sidecar {}", json_quote(fmt::format("{}.json", file)));
  const nlohmann::json object = parse_object(text, where);
  ObjectReader reader(object, where);
  const std::string format = reader.string("format", 64);
  if (format != kFormatName) {
    throw DataError(fmt::format("{}: key \"format\": expected \"{}\", found {}. Not the sidecar of a token file", where,
                                kFormatName, json_quote(format)));
  }
  const std::int64_t version = reader.integer("version", 0, INT32_MAX);
  if (version != kFormatVersion) {
    throw DataError(fmt::format("{}: key \"version\": this program reads version {}, found {}. {}", where,
                                kFormatVersion, version, kPrepareAgain));
  }
  const std::string layout = reader.string("layout", 16);
  if (layout != name_of(TokenLayout::kHeader) && layout != name_of(TokenLayout::kRaw)) {
    throw DataError(
        fmt::format("{}: key \"layout\": expected \"header\" or \"raw\", found {}", where, json_quote(layout)));
  }
  info.layout = layout == name_of(TokenLayout::kRaw) ? TokenLayout::kRaw : TokenLayout::kHeader;
  const std::string type = reader.string("dtype", 16);
  if (type != name_of(TokenType::kU16) && type != name_of(TokenType::kU32)) {
    throw DataError(fmt::format("{}: key \"dtype\": expected \"u16\" or \"u32\", found {}", where, json_quote(type)));
  }
  info.type = type == name_of(TokenType::kU16) ? TokenType::kU16 : TokenType::kU32;
  info.tokens = reader.integer("tokens", 1, INT64_MAX / 8);
  info.vocab = reader.integer("vocab_size", 1, INT32_MAX);
  const nlohmann::json& tokenizer = reader.object("tokenizer");
  info.tokenizer = tokenizer_from_json(dump(tokenizer), fmt::format("{}: key \"tokenizer\"", where));
  info.source = reader.string("source", 4096);
  info.crc32c = reader.optional_hex32("crc32c");
  reader.finish();
}

// The claims of header and sidecar against each other.
void read_header(std::string_view name, std::span<const std::byte> head, bool from_sidecar, TokenFileInfo& info) {
  if (head.size() < kTokenHeaderBytes) {
    throw DataError(fmt::format("token file {}: truncated: its header has {} bytes, the file {}. {}", json_quote(name),
                                kTokenHeaderBytes, head.size(), kPrepareAgain));
  }
  const std::int32_t magic = word(head, 0);
  const HeaderKind* kind = kind_of(magic);
  if (kind == nullptr) {
    throw DataError(
        fmt::format("token file {}: its sidecar promises a header with magic 20240520 (u16) or 20240801 "
                    "(u32), found {}. {}",
                    json_quote(name), magic, kPrepareAgain));
  }
  if (word(head, 1) != kind->version) {
    throw DataError(fmt::format("token file {}: expected version {} with magic {}, found {}. {}", json_quote(name),
                                kind->version, magic, word(head, 1), kPrepareAgain));
  }
  const std::int64_t tokens = word(head, 2);
  if (tokens < 1) {
    throw DataError(fmt::format("token file {}: its header claims {} tokens, expected 1 to {}. {}", json_quote(name),
                                tokens, kMaxHeaderTokens, kPrepareAgain));
  }
  if (from_sidecar && info.type != kind->type) {
    throw DataError(fmt::format("token file {}: its header says {}, its sidecar {}. Remove the wrong one of the two",
                                json_quote(name), name_of(kind->type), name_of(info.type)));
  }
  if (from_sidecar && info.tokens != tokens) {
    throw DataError(
        fmt::format("token file {}: its header says {} tokens, its sidecar {}. The sidecar belongs to "
                    "another file: remove it or prepare both again",
                    json_quote(name), tokens, info.tokens));
  }
  info.type = kind->type;
  info.tokens = tokens;
}

}  // namespace

bool is_sidecar(std::string_view text) {
  if (text.size() > kMaxSidecarBytes || !text.starts_with('{')) return false;
  try {
    const nlohmann::json object = parse_object(text, "");
    const auto format = object.find("format");
    return format != object.end() && *format == kFormatName;
  } catch (const DataError&) {
    return false;  // JSON of somebody else, or none
  }
}

std::string_view kind_of_no_text(std::span<const std::byte> sample) {
  if (sample.size() >= 4 && kind_of(word(sample, 0)) != nullptr) return "a token file (name it in data.train)";
  if (const std::string_view kind = kind_of_other_file(sample); !kind.empty()) return kind;
  return has_zeros(sample) ? "bytes of no text (zeros)" : "";
}

TokenFileInfo parse_token_file(std::string_view name, std::span<const std::byte> sample, std::uint64_t file_bytes,
                               std::optional<std::string_view> sidecar, std::optional<TokenType> raw_type) {
  if (file_bytes == 0) {
    throw DataError(fmt::format("token file {}: is empty, expected tokens. {}", json_quote(name), kPrepareAgain));
  }
  TokenFileInfo info;
  if (sidecar) {
    read_sidecar(name, *sidecar, info);
  } else if (sample.size() >= 4 && kind_of(word(sample, 0)) != nullptr) {
    info.layout = TokenLayout::kHeader;
  } else {
    refuse_foreign(name, sample);
    info.layout = TokenLayout::kRaw;
    info.type = raw_type_of(name, sample, raw_type);
  }

  if (info.layout == TokenLayout::kHeader) read_header(name, sample, sidecar.has_value(), info);
  const std::uint64_t data_bytes = file_bytes - info.data_offset_bytes();
  if (info.layout == TokenLayout::kRaw && !sidecar) {
    if (data_bytes % size_bytes(info.type) != 0) {
      throw DataError(
          fmt::format("token file {}: {} bytes are not a whole number of {} tokens. It is truncated, or not a token "
                      "file, or data.dtype is wrong",
                      json_quote(name), data_bytes, name_of(info.type)));
    }
    info.tokens = static_cast<std::int64_t>(data_bytes / size_bytes(info.type));
  }
  const auto claimed_bytes = static_cast<std::uint64_t>(info.tokens) * size_bytes(info.type);
  if (data_bytes != claimed_bytes) {
    throw DataError(fmt::format("token file {}: {} {} tokens are {} bytes, found {} ({}). {}", json_quote(name),
                                info.tokens, name_of(info.type), claimed_bytes, data_bytes,
                                data_bytes < claimed_bytes ? "truncated" : "too long", kPrepareAgain));
  }
  return info;
}

std::array<std::byte, kTokenHeaderBytes> token_header(const TokenFileInfo& info) {
  STRAKE_CHECK(info.layout == TokenLayout::kHeader && info.tokens <= kMaxHeaderTokens, "no header holds this count");
  std::array<std::byte, kTokenHeaderBytes> header{};
  for (const HeaderKind& kind : kHeaderKinds) {
    if (kind.type != info.type) continue;
    const std::int32_t words[] = {kind.magic, kind.version, static_cast<std::int32_t>(info.tokens)};
    std::memcpy(header.data(), words, sizeof words);
  }
  return header;
}

std::string sidecar_json(const TokenFileInfo& info) {
  nlohmann::ordered_json object{{"format", kFormatName},
                                {"version", kFormatVersion},
                                {"layout", name_of(info.layout)},
                                {"dtype", name_of(info.type)},
                                {"tokens", info.tokens},
                                {"vocab_size", info.vocab},
                                {"tokenizer", {{"name", info.tokenizer.name}, {"hash", info.tokenizer.hash}}},
                                {"source", info.source}};
  if (info.crc32c) object["crc32c"] = fmt::format("{:08x}", *info.crc32c);
  return dump(object, 2) + "\n";
}

}  // namespace strake::data
