#include "runtime/base/text.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace strake {
namespace {

TEST(EditDistance, CountsInsertionsDeletionsSubstitutionsAndSwaps) {
  EXPECT_EQ(edit_distance("", ""), 0u);
  EXPECT_EQ(edit_distance("", "abc"), 3u);
  EXPECT_EQ(edit_distance("abc", ""), 3u);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);
  EXPECT_EQ(edit_distance("steps", "stpes"), 1u);
  EXPECT_EQ(edit_distance("steps", "steps"), 0u);
}

TEST(Nearest, FindsWhatWasMeant) {
  const std::vector<std::string> names{"train.steps", "train.stop_at", "comm.overlap"};
  EXPECT_EQ(nearest("train.stpes", names), "train.steps");
  EXPECT_EQ(nearest("steps", names), "train.steps");
  EXPECT_EQ(nearest("model.overlap", names), "comm.overlap");
  EXPECT_EQ(nearest("something.else", names), "");
}

TEST(JsonQuote, EscapesAndReplacesWhatIsNotUtf8) {
  EXPECT_EQ(json_quote("plain"), R"("plain")");
  EXPECT_EQ(json_quote("a\"b\\c\nd\x01"), R"("a\"b\\c\nd\u0001")");
  EXPECT_EQ(json_quote("gr\xc3\xbc\xc3\x9f"), "\"gr\xc3\xbc\xc3\x9f\"");
  EXPECT_EQ(json_quote("\xff"), R"("\ufffd")");
  EXPECT_EQ(json_quote("\xc3"), R"("\ufffd")");                      // cut short
  EXPECT_EQ(json_quote("\xed\xa0\x80"), R"("\ufffd\ufffd\ufffd")");  // a surrogate
  EXPECT_EQ(json_quote("\xc0\xaf"), R"("\ufffd\ufffd")");            // an overlong slash
}

TEST(Hash64, IsFnv1a) {
  EXPECT_EQ(hash64(""), 0xcbf29ce484222325u);
  EXPECT_EQ(hash64("a"), 0xaf63dc4c8601ec8cu);
  EXPECT_EQ(hash64("foobar"), 0x85944171f73967e8u);
}

}  // namespace
}  // namespace strake
