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
          .files = {{.path = "/data/train.bin", .tokens = 4'000'000, .crc32c = 0x0000beefu}},
          .tokenizer = {.name = "bytes", .hash = "9c44184b"}};
}

TEST(DataCursor, SurvivesTheCheckpoint) {
  EXPECT_EQ(cursor_from_json(to_json(cursor())), cursor());
  DataCursor unknown = cursor();
  unknown.files[0].crc32c.reset();
  unknown.tokenizer = {};
  unknown.files[0].path = "tr\"ain\\\n.bin";
  EXPECT_EQ(cursor_from_json(to_json(unknown)), unknown);
}

// Checkpoints hold these bytes.
TEST(DataCursor, TextIsPinned) {
  EXPECT_EQ(to_json(cursor()),
            R"({"version":1,"seed":18446744073709551615,"next_sample":123456789012,"sequence":128,)"
            R"("file":"/data/train.bin","file_tokens":4000000,"tokenizer":{"name":"bytes","hash":"9c44184b"},)"
            R"("file_crc32c":"0000beef"})");
}

DataCursor cursor_of_three() {
  DataCursor cursor = strake::data::cursor();
  cursor.files.push_back({.path = "/data/b.bin", .tokens = 7, .crc32c = {}});
  cursor.files.push_back({.path = "/data/c.bin", .tokens = 8, .crc32c = 1u});
  return cursor;
}

TEST(DataCursor, OfSeveralFilesHasAVersionOfItsOwn) {
  EXPECT_EQ(to_json(cursor_of_three()),
            R"({"version":2,"seed":18446744073709551615,"next_sample":123456789012,"sequence":128,)"
            R"("tokenizer":{"name":"bytes","hash":"9c44184b"},"files":[)"
            R"({"path":"/data/train.bin","tokens":4000000,"crc32c":"0000beef"},)"
            R"({"path":"/data/b.bin","tokens":7},{"path":"/data/c.bin","tokens":8,"crc32c":"00000001"}]})");
  EXPECT_EQ(cursor_from_json(to_json(cursor_of_three())), cursor_of_three());
}

TEST(DataCursor, SeveralFilesContinueWithTheSameInTheSameOrder) {
  const DataCursor saved = cursor_of_three();
  DataCursor now = saved;
  for (auto& file : now.files) file.path = "/elsewhere" + file.path;
  now.files[1].crc32c = 77u;  // was not known
  now.files[2].crc32c.reset();
  require_same_data(saved, now);
  const auto refused = [&](const DataCursor& other) {
    return thrown_by<DataError>([&] { require_same_data(saved, other); });
  };
  std::swap(now.files[1], now.files[2]);
  const std::string swapped = refused(now);
  EXPECT_NE(swapped.find("file 2 of data.train (\"/elsewhere/data/c.bin\", was \"/data/b.bin\") had 7 tokens, has 8"),
            std::string::npos)
      << swapped;
  now = saved;
  now.files.pop_back();
  EXPECT_NE(refused(now).find("data.train had 3 files, has 2"), std::string::npos) << refused(now);
  EXPECT_NE(refused(cursor()).find("data.train had 3 files, has 1"), std::string::npos) << refused(cursor());
  now = saved;
  now.files[2].crc32c = 2u;
  EXPECT_NE(refused(now).find("had checksum 00000001, has 00000002"), std::string::npos) << refused(now);
}

TEST(DataCursor, RefusesMalformedLists) {
  const std::string good = to_json(cursor_of_three());
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    return text.replace(text.find(from), from.size(), to);
  };
  for (const std::string& bad :
       {with("\"version\":2", "\"version\":1"), with("[{", "{\"a\":[{"), with("\"tokens\":7", "\"tokens\":0"),
        with("{\"path\":\"/data/b.bin\",\"tokens\":7}", "7"), with("\"path\"", "\"file\""),
        good.substr(0, good.find(",{\"path\":\"/data/b.bin\"")) + "]}", good.substr(0, good.find('[')) + "[]}"}) {
    const std::string message = thrown_by<DataError>([&] { cursor_from_json(bad); });
    EXPECT_NE(message.find("data cursor of the checkpoint"), std::string::npos) << bad << ": " << message;
  }
}

TEST(DataCursor, AFileWithANameThatIsNotUtf8CanBeWritten) {
  DataCursor odd = cursor();
  odd.files[0].path = "train\xff.bin";
  EXPECT_EQ(cursor_from_json(to_json(odd)).files[0].path, "train\xef\xbf\xbd.bin");
}

TEST(DataCursor, RefusesMalformedText) {
  const std::string good = to_json(cursor());
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    return text.replace(text.find(from), from.size(), to);
  };
  for (const std::string& bad :
       {std::string(), std::string("{}"), std::string("[]"), good.substr(0, good.size() - 1), good + "}",
        with("\"version\":1", "\"version\":2"), with("\"version\":1", "\"version\":3"),
        with("18446744073709551615", "-1"), with("123456789012", "-1"), with("\"sequence\":128", "\"sequence\":0"),
        with("4000000", "\"4000000\""), with("0000beef", "beef"), with("\"sequence\"", "\"sequences\""),
        with("{\"name\"", "{\"names\"")}) {
    const std::string message = thrown_by<DataError>([&] { cursor_from_json(bad); });
    EXPECT_NE(message.find("data cursor of the checkpoint"), std::string::npos) << bad << ": " << message;
  }
}

TEST(DataCursor, ContinuesWithTheSameDataOnly) {
  const DataCursor saved = cursor();
  require_same_data(saved, saved);
  DataCursor now = saved;
  now.next_sample = 0;
  now.files[0].path = "/elsewhere/train.bin";
  require_same_data(saved, now);
  now.files[0].crc32c.reset();
  now.tokenizer = {};
  require_same_data(saved, now);
  require_same_data(now, saved);

  now = saved;
  now.seed = 1;
  now.sequence = 64;
  now.files[0].tokens = 5;
  now.files[0].crc32c = 7;
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
      [](DataCursor& c) { c.files[0].tokens = 1; }, [](DataCursor& c) { c.files[0].crc32c = 1; },
      [](DataCursor& c) { c.tokenizer.hash = "other"; }};
  for (const auto& change : changes) {
    now = saved;
    change(now);
    EXPECT_THROW(require_same_data(saved, now), DataError);
  }
}

TEST(DataCursor, ImportedWeightsTakeAnyDataOfTheirTokenizer) {
  DataCursor now;
  now.files = {{.path = "/data/train.bin", .tokens = 1, .crc32c = {}}};
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
