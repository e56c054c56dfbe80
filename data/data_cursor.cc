#include "data/data_cursor.h"

#include <fmt/format.h>

#include <vector>

#include "data/strict_json.h"
#include "runtime/base/error.h"
#include "runtime/base/text.h"

namespace strake::data {
namespace {

constexpr std::int64_t kVersion = 1;
constexpr std::string_view kWhere = "data cursor of the checkpoint";

std::string describe(const TokenizerIdentity& identity) {
  return json_quote(identity.hash.empty() ? identity.name : fmt::format("{} {}", identity.name, identity.hash));
}

}  // namespace

DataCursor make_cursor(const TokenFile& file, std::uint64_t seed, std::int64_t sequence, std::int64_t next_sample) {
  return {.seed = seed,
          .next_sample = next_sample,
          .sequence = sequence,
          .file = file.describe(),
          .file_tokens = file.tokens(),
          .file_crc32c = file.info().crc32c,
          .tokenizer = file.info().tokenizer};
}

std::string to_json(const DataCursor& cursor) {
  nlohmann::ordered_json object{{"version", kVersion},
                                {"seed", cursor.seed},
                                {"next_sample", cursor.next_sample},
                                {"sequence", cursor.sequence},
                                {"file", cursor.file},
                                {"file_tokens", cursor.file_tokens},
                                {"tokenizer", {{"name", cursor.tokenizer.name}, {"hash", cursor.tokenizer.hash}}}};
  if (cursor.file_crc32c) object["file_crc32c"] = fmt::format("{:08x}", *cursor.file_crc32c);
  return dump(object);
}

DataCursor cursor_from_json(std::string_view json) {
  const nlohmann::json object = parse_object(json, kWhere);
  ObjectReader reader(object, kWhere);
  const std::int64_t version = reader.integer("version", 0, INT32_MAX);
  if (version != kVersion) {
    throw DataError(fmt::format("{}: this program reads version {}, found {}. Resume with the program that wrote it",
                                kWhere, kVersion, version));
  }
  DataCursor cursor{.seed = reader.unsigned_integer("seed"),
                    .next_sample = reader.integer("next_sample", 0, INT64_MAX),
                    .sequence = reader.integer("sequence", 1, INT64_MAX),
                    .file = reader.string("file", 64 * 1024),
                    .file_tokens = reader.integer("file_tokens", 1, INT64_MAX),
                    .file_crc32c = reader.optional_hex32("file_crc32c"),
                    .tokenizer = tokenizer_from_json(dump(reader.object("tokenizer")), kWhere)};
  reader.finish();
  return cursor;
}

void require_same_data(const DataCursor& saved, const DataCursor& now) {
  std::vector<std::string> differences;
  if (saved.seed != now.seed) differences.push_back(fmt::format("run.seed was {}, is {}", saved.seed, now.seed));
  if (saved.sequence != now.sequence) {
    differences.push_back(fmt::format("train.sequence was {}, is {}", saved.sequence, now.sequence));
  }
  if (saved.file_tokens != now.file_tokens) {
    differences.push_back(fmt::format("data.train had {} tokens, has {}", saved.file_tokens, now.file_tokens));
  }
  if (saved.file_crc32c && now.file_crc32c && *saved.file_crc32c != *now.file_crc32c) {
    differences.push_back(
        fmt::format("data.train had checksum {:08x}, has {:08x}", *saved.file_crc32c, *now.file_crc32c));
  }
  if (saved.tokenizer.known() && now.tokenizer.known() && saved.tokenizer != now.tokenizer) {
    differences.push_back(
        fmt::format("its tokenizer was {}, is {}", describe(saved.tokenizer), describe(now.tokenizer)));
  }
  if (differences.empty()) return;
  throw DataError(
      fmt::format("token file {}: the checkpoint was trained on other data (file {}): {}. The samples of the run would "
                  "not continue "
                  "where they stopped: restore file and settings, or start in a new run.dir",
                  json_quote(now.file), json_quote(saved.file), fmt::join(differences, "; ")));
}

void require_same_tokenizer(const TokenizerIdentity& saved, const DataCursor& now) {
  if (!saved.known() || !now.tokenizer.known()) return;
  const bool hashes_differ = !saved.hash.empty() && !now.tokenizer.hash.empty() && saved.hash != now.tokenizer.hash;
  if (saved.name == now.tokenizer.name && !hashes_differ) return;
  throw DataError(
      fmt::format("token file {}: its tokenizer is {}, the weights to start from were trained with {}: ids would mean "
                  "other text. Prepare the data with the tokenizer of the weights",
                  json_quote(now.file), describe(now.tokenizer), describe(saved)));
}

}  // namespace strake::data
