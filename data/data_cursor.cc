#include "data/data_cursor.h"

#include <fmt/format.h>

#include <vector>

#include "data/strict_json.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/base/text.h"

namespace strake::data {
namespace {

constexpr std::int64_t kOneFile = 1, kSeveralFiles = 2;  // versions
constexpr std::string_view kWhere = "data cursor of the checkpoint";
constexpr std::size_t kMostPathBytes = 64 * 1024;
constexpr std::size_t kMostDifferences = 5;  // that a message lists

std::string describe(const std::vector<DataCursor::File>& files) {
  const std::string first = json_quote(files.front().path);
  return files.size() == 1 ? first : fmt::format("{} and {} more", first, files.size() - 1);
}

// What differs between the file of then and of now, if anything.
void compare(std::string_view what, const DataCursor::File& saved, const DataCursor::File& now,
             std::vector<std::string>& differences) {
  if (saved.tokens != now.tokens) {
    differences.push_back(fmt::format("{} had {} tokens, has {}", what, saved.tokens, now.tokens));
  }
  if (saved.crc32c && now.crc32c && *saved.crc32c != *now.crc32c) {
    differences.push_back(fmt::format("{} had checksum {:08x}, has {:08x}", what, *saved.crc32c, *now.crc32c));
  }
}

nlohmann::ordered_json json_of(const DataCursor::File& file) {
  nlohmann::ordered_json object{{"path", file.path}, {"tokens", file.tokens}};
  if (file.crc32c) object["crc32c"] = fmt::format("{:08x}", *file.crc32c);
  return object;
}

}  // namespace

DataCursor make_cursor(const TokenFiles& files, std::uint64_t seed, std::int64_t sequence, std::int64_t next_sample) {
  DataCursor cursor{
      .seed = seed, .next_sample = next_sample, .sequence = sequence, .files = {}, .tokenizer = files.tokenizer()};
  for (std::size_t i = 0; i < files.size(); ++i) {
    const TokenFile& file = files.file(i);
    cursor.files.push_back({.path = file.describe(), .tokens = file.tokens(), .crc32c = file.info().crc32c});
  }
  return cursor;
}

std::string to_json(const DataCursor& cursor) {
  STRAKE_CHECK(!cursor.files.empty(), "a cursor is of at least one file");
  const bool one = cursor.files.size() == 1;
  nlohmann::ordered_json object{{"version", one ? kOneFile : kSeveralFiles},
                                {"seed", cursor.seed},
                                {"next_sample", cursor.next_sample},
                                {"sequence", cursor.sequence}};
  const nlohmann::ordered_json tokenizer{{"name", cursor.tokenizer.name}, {"hash", cursor.tokenizer.hash}};
  if (one) {
    const DataCursor::File& file = cursor.files.front();
    object["file"] = file.path;
    object["file_tokens"] = file.tokens;
    object["tokenizer"] = tokenizer;
    if (file.crc32c) object["file_crc32c"] = fmt::format("{:08x}", *file.crc32c);
  } else {
    object["tokenizer"] = tokenizer;
    object["files"] = nlohmann::ordered_json::array();
    for (const DataCursor::File& file : cursor.files) object["files"].push_back(json_of(file));
  }
  return dump(object);
}

DataCursor cursor_from_json(std::string_view json) {
  const nlohmann::json object = parse_object(json, kWhere);
  ObjectReader reader(object, kWhere);
  const std::int64_t version = reader.integer("version", 0, INT32_MAX);
  if (version != kOneFile && version != kSeveralFiles) {
    throw DataError(
        fmt::format("{}: this program reads versions {} and {}, found {}. Resume with the program that wrote it",
                    kWhere, kOneFile, kSeveralFiles, version));
  }
  DataCursor cursor{.seed = reader.unsigned_integer("seed"),
                    .next_sample = reader.integer("next_sample", 0, INT64_MAX),
                    .sequence = reader.integer("sequence", 1, INT64_MAX),
                    .files = {},
                    .tokenizer = tokenizer_from_json(dump(reader.object("tokenizer")), kWhere)};
  if (version == kOneFile) {
    cursor.files.push_back({.path = reader.string("file", kMostPathBytes),
                            .tokens = reader.integer("file_tokens", 1, INT64_MAX),
                            .crc32c = reader.optional_hex32("file_crc32c")});
  } else {
    for (const nlohmann::json& entry : reader.array("files", 2)) {
      if (!entry.is_object()) throw DataError(fmt::format("{}: key \"files\": expected objects only", kWhere));
      ObjectReader file(entry, kWhere);
      cursor.files.push_back({.path = file.string("path", kMostPathBytes),
                              .tokens = file.integer("tokens", 1, INT64_MAX),
                              .crc32c = file.optional_hex32("crc32c")});
      file.finish();
    }
  }
  reader.finish();
  return cursor;
}

void require_same_data(const DataCursor& saved, const DataCursor& now) {
  std::vector<std::string> differences;
  if (saved.seed != now.seed) differences.push_back(fmt::format("run.seed was {}, is {}", saved.seed, now.seed));
  if (saved.sequence != now.sequence) {
    differences.push_back(fmt::format("train.sequence was {}, is {}", saved.sequence, now.sequence));
  }
  if (saved.files.size() != now.files.size()) {
    differences.push_back(fmt::format("data.train had {} files, has {}", saved.files.size(), now.files.size()));
  } else if (saved.files.size() == 1) {
    compare("data.train", saved.files.front(), now.files.front(), differences);
  } else {
    for (std::size_t i = 0; i < saved.files.size() && differences.size() < kMostDifferences; ++i) {
      compare(fmt::format("file {} of data.train ({}, was {})", i + 1, json_quote(now.files[i].path),
                          json_quote(saved.files[i].path)),
              saved.files[i], now.files[i], differences);
    }
  }
  if (saved.tokenizer.known() && now.tokenizer.known() && saved.tokenizer != now.tokenizer) {
    differences.push_back(fmt::format("its tokenizer was {}, is {}", describe_tokenizer(saved.tokenizer),
                                      describe_tokenizer(now.tokenizer)));
  }
  if (differences.empty()) return;
  throw DataError(
      fmt::format("token file {}: the checkpoint was trained on other data (file {}): {}. The samples of the run would "
                  "not continue where they stopped: restore file and settings, or start in a new run.dir",
                  describe(now.files), describe(saved.files), fmt::join(differences, "; ")));
}

void require_same_tokenizer(const TokenizerIdentity& saved, const DataCursor& now) {
  if (!saved.known() || !now.tokenizer.known()) return;
  const bool hashes_differ = !saved.hash.empty() && !now.tokenizer.hash.empty() && saved.hash != now.tokenizer.hash;
  if (saved.name == now.tokenizer.name && !hashes_differ) return;
  throw DataError(
      fmt::format("token file {}: its tokenizer is {}, the weights to start from were trained with {}: ids would mean "
                  "other text. Prepare the data with the tokenizer of the weights",
                  describe(now.files), describe_tokenizer(now.tokenizer), describe_tokenizer(saved)));
}

}  // namespace strake::data
