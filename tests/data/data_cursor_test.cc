#include "data/data_cursor.h"

#include <gtest/gtest.h>

#include <string>

#include "data/byte_tokenizer.h"
#include "runtime/base/error.h"
#include "runtime/io/crc32c.h"
#include "tests/support/thrown_by.h"

namespace strake::data {
namespace {

using test::thrown_by;

DataCursor cursor() {
  return {.seed = UINT64_MAX,
          .next_sample = 123'456'789'012,
          .sequence = 128,
          .file = "/data/train.bin",
          .file_tokens = 4'000'000,
          .file_crc32c = 0x0000beefu,
          .tokenizer = {.name = "bytes", .hash = "9c44184b"}};
}

TEST(DataCursor, SurvivesTheCheckpoint) {
  EXPECT_EQ(cursor_from_json(to_json(cursor())), cursor());
  DataCursor unknown = cursor();
  unknown.file_crc32c.reset();
  unknown.tokenizer = {};
  unknown.file = "tr\"ain\\\n.bin";
  EXPECT_EQ(cursor_from_json(to_json(unknown)), unknown);
}

// Checkpoints hold these bytes.
TEST(DataCursor, TextIsPinned) {
  EXPECT_EQ(to_json(cursor()),
            R"({"version":1,"seed":18446744073709551615,"next_sample":123456789012,"sequence":128,)"
            R"("file":"/data/train.bin","file_tokens":4000000,"tokenizer":{"name":"bytes","hash":"9c44184b"},)"
            R"("file_crc32c":"0000beef"})");
}

TEST(DataCursor, AFileWithANameThatIsNotUtf8CanBeWritten) {
  DataCursor odd = cursor();
  odd.file = "train\xff.bin";
  EXPECT_EQ(cursor_from_json(to_json(odd)).file, "train\xef\xbf\xbd.bin");
}

TEST(DataCursor, RefusesMalformedText) {
  const std::string good = to_json(cursor());
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    return text.replace(text.find(from), from.size(), to);
  };
  for (const std::string& bad :
       {std::string(), std::string("{}"), std::string("[]"), good.substr(0, good.size() - 1), good + "}",
        with("\"version\":1", "\"version\":2"), with("18446744073709551615", "-1"), with("123456789012", "-1"),
        with("\"sequence\":128", "\"sequence\":0"), with("4000000", "\"4000000\""), with("0000beef", "beef"),
        with("\"sequence\"", "\"sequences\""), with("{\"name\"", "{\"names\"")}) {
    const std::string message = thrown_by<DataError>([&] { cursor_from_json(bad); });
    EXPECT_NE(message.find("data cursor of the checkpoint"), std::string::npos) << bad << ": " << message;
  }
}

TEST(DataCursor, ContinuesWithTheSameDataOnly) {
  const DataCursor saved = cursor();
  require_same_data(saved, saved);
  DataCursor now = saved;
  now.next_sample = 0;
  now.file = "/elsewhere/train.bin";
  require_same_data(saved, now);
  now.file_crc32c.reset();
  now.tokenizer = {};
  require_same_data(saved, now);
  require_same_data(now, saved);

  now = saved;
  now.seed = 1;
  now.sequence = 64;
  now.file_tokens = 5;
  now.file_crc32c = 7;
  now.tokenizer = {.name = "gpt2", .hash = ""};
  EXPECT_EQ(
      thrown_by<DataError>([&] { require_same_data(saved, now); }),
      "token file \"/data/train.bin\": the checkpoint was trained on other data (file \"/data/train.bin\"): run.seed "
      "was 18446744073709551615, is 1; train.sequence was 128, is 64; data.train had 4000000 tokens, has 5; "
      "data.train had checksum 0000beef, has 00000007; its tokenizer was \"bytes 9c44184b\", is \"gpt2\". The "
      "samples of the run would not continue where they stopped: restore file and settings, or start in a new "
      "run.dir");
  const std::function<void(DataCursor&)> changes[] = {
      [](DataCursor& c) { c.seed = 0; }, [](DataCursor& c) { c.sequence = 1; },
      [](DataCursor& c) { c.file_tokens = 1; }, [](DataCursor& c) { c.file_crc32c = 1; },
      [](DataCursor& c) { c.tokenizer.hash = "other"; }};
  for (const auto& change : changes) {
    now = saved;
    change(now);
    EXPECT_THROW(require_same_data(saved, now), DataError);
  }
}

TEST(DataCursor, ImportedWeightsTakeAnyDataOfTheirTokenizer) {
  DataCursor now;
  now.file = "/data/train.bin";
  now.tokenizer = ByteTokenizer::identity();
  for (const TokenizerIdentity& saved :
       {ByteTokenizer::identity(), TokenizerIdentity{}, TokenizerIdentity{.name = "bytes", .hash = ""}}) {
    EXPECT_NO_THROW(require_same_tokenizer(saved, now)) << to_json(saved);
  }
  for (const TokenizerIdentity& saved :
       {TokenizerIdentity{.name = "gpt2", .hash = ""}, TokenizerIdentity{.name = "bytes", .hash = "00000000"}}) {
    EXPECT_THROW(require_same_tokenizer(saved, now), DataError) << to_json(saved);
    now.tokenizer = {};
    EXPECT_NO_THROW(require_same_tokenizer(saved, now)) << "the data's tokenizer is not known";
    now.tokenizer = ByteTokenizer::identity();
  }
}

TEST(ByteTokenizer, IsTheIdentityOnBytes) {
  std::string text;
  for (int byte = 0; byte < 256; ++byte) text.push_back(static_cast<char>(byte));
  std::vector<std::int32_t> ids(256);
  ByteTokenizer::encode(text, ids);
  for (int byte = 0; byte < 256; ++byte) EXPECT_EQ(ids[static_cast<std::size_t>(byte)], byte);
  EXPECT_EQ(ByteTokenizer::decode(ids), text);
  EXPECT_EQ(std::stoul(ByteTokenizer::identity().hash, nullptr, 16),
            crc32c(std::as_bytes(std::span<const char>(text.data(), text.size()))));
}

TEST(TokenizerIdentity, SurvivesAsJson) {
  const TokenizerIdentity identity = ByteTokenizer::identity();
  EXPECT_EQ(to_json(identity), R"({"name":"bytes","hash":"9c44184b"})");
  EXPECT_EQ(tokenizer_from_json(to_json(identity), "here"), identity);
  EXPECT_THROW(tokenizer_from_json("{\"name\": 1, \"hash\": \"\"}", "here"), DataError);
}

}  // namespace
}  // namespace strake::data
