#include "data/token_files.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <fstream>
#include <numeric>
#include <string>
#include <vector>

#include "data/token_file_writer.h"
#include "runtime/base/error.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/thrown_by.h"

namespace strake::data {
namespace {

using test::thrown_by;

class TokenFilesTest : public testing::Test {
 protected:
  // Tokens begin, begin + 1, ...
  std::filesystem::path write(const std::string& name, std::int32_t begin, std::size_t count,
                              TokenType type = TokenType::kU16, const std::string& tokenizer = "counted") {
    TokenFileInfo info;
    info.type = type;
    info.vocab = begin + static_cast<std::int32_t>(count);
    info.tokenizer = {.name = tokenizer, .hash = ""};
    TokenFileWriter writer(files_, folder_.path() / name, info);
    std::vector<std::int32_t> ids(count);
    std::iota(ids.begin(), ids.end(), begin);
    writer.append(ids);
    writer.finish();
    writer.publish();
    return folder_.path() / name;
  }
  void touch(const std::string& name) { std::ofstream(folder_.path() / name) << "x"; }
  std::vector<std::string> found(const std::vector<std::string>& names) {
    std::vector<std::string> full, out;
    for (const std::string& name : names) full.push_back((folder_.path() / name).string());
    for (const auto& path : find_token_files(full)) out.push_back(path.lexically_relative(folder_.path()).string());
    return out;
  }

  test::ScratchFolder folder_{test::ScratchFolder::Where::kMemory};
  PosixFiles files_;
};

using Names = std::vector<std::string>;

TEST_F(TokenFilesTest, PatternsMatchInTheOrderOfTheirNumbers) {
  for (const char* name : {"shard-10.bin", "shard-9.bin", "shard-2.bin", "shard-2.bin.json", "shard-1.bin", "other.bin",
                           "shard-010a.bin", "x.json", "shard-100.bin"}) {
    touch(name);
  }
  EXPECT_EQ(found({"shard-*.bin"}),
            (Names{"shard-1.bin", "shard-2.bin", "shard-9.bin", "shard-10.bin", "shard-010a.bin", "shard-100.bin"}));
  EXPECT_EQ(found({"shard-?.bin", "shard-1[0].bin"}),
            (Names{"shard-1.bin", "shard-2.bin", "shard-9.bin", "shard-10.bin"}));
  EXPECT_EQ(found({"shard-2*"}), Names{"shard-2.bin"}) << "a sidecar is no file of its own";
  EXPECT_EQ(found({"x*"}), Names{"x.json"}) << "not a sidecar: there is no x";
  EXPECT_EQ(found({"other.bin", "shard-1.bin"}), (Names{"other.bin", "shard-1.bin"})) << "a list keeps its order";
  EXPECT_EQ(found({"missing.bin"}), Names{"missing.bin"}) << "opening it says so";
  touch("odd[1].bin");
  EXPECT_EQ(found({"odd[1].bin"}), Names{"odd[1].bin"}) << "what exists is meant";
}

TEST_F(TokenFilesTest, RefusesPatternsThatMatchNothingAndFilesNamedTwice) {
  touch("a.bin");
  const std::string nothing = thrown_by<DataError>([&] { found({"a.bin", "b-*.bin"}); });
  EXPECT_NE(nothing.find(fmt::format("token files \"{}/b-*.bin\": no file has such a name", folder_.path().string())),
            std::string::npos)
      << nothing;
  for (const Names& twice : {Names{"a.bin", "a.bin"}, Names{"a.bin", "*.bin"}, Names{"./a.bin", "a.bin"}}) {
    const std::string message = thrown_by<DataError>([&] { found(twice); });
    EXPECT_NE(message.find("a.bin\": is named twice"), std::string::npos) << message;
  }
}

TEST_F(TokenFilesTest, AreReadAsOneStream) {
  // Every cut of the stream, files of one token and of another type among them.
  TokenFiles files({write("a", 0, 5), write("b", 5, 1), write("c", 6, 100, TokenType::kU32), write("d", 106, 3)});
  ASSERT_EQ(files.tokens(), 109);
  EXPECT_EQ(files.sequences(9), 12);
  for (std::int64_t begin = 0; begin <= files.tokens(); ++begin) {
    for (std::int64_t end = begin; end <= files.tokens(); ++end) {
      std::vector<std::int32_t> ids(static_cast<std::size_t>(end - begin), -1), expected(ids.size());
      std::iota(expected.begin(), expected.end(), static_cast<std::int32_t>(begin));
      files.read(begin, ids);
      ASSERT_EQ(ids, expected) << begin << " to " << end;
    }
  }
  EXPECT_EQ(files.describe(), (folder_.path() / "a").string() + " and 3 more");
  EXPECT_EQ(files.vocab(), 109);
  EXPECT_EQ(files.file_of_vocab().describe(), (folder_.path() / "d").string());
  EXPECT_EQ(files.tokenizer().name, "counted");
}

TEST_F(TokenFilesTest, SayWhereATokenIs) {
  TokenFiles files({write("a", 0, 5), write("b", 5, 1), write("c", 6, 100)});
  const std::pair<std::int64_t, std::pair<const char*, std::int64_t>> places[] = {
      {0, {"a", 0}}, {4, {"a", 4}}, {5, {"b", 0}}, {6, {"c", 0}}, {105, {"c", 99}}};
  for (const auto& [token, place] : places) {
    EXPECT_EQ(files.place_of(token).source, (folder_.path() / place.first).string()) << token;
    EXPECT_EQ(files.place_of(token).token, place.second) << token;
  }
  const std::string message = thrown_by<DataError>([&] { require_ids_below(50, files, 3, files.tokens()); });
  EXPECT_NE(message.find(fmt::format("token file \"{}/c\": token 44 is id 50, but the vocabulary has 50",
                                     folder_.path().string())),
            std::string::npos)
      << message;
  EXPECT_EQ(thrown_by<DataError>([&] { require_ids_below(50, files, 0, 50); }), "nothing");
}

TEST_F(TokenFilesTest, RefuseTokensOfDifferentTokenizers) {
  const auto a = write("a", 0, 5), b = write("b", 0, 5, TokenType::kU16, "unknown"),
             c = write("c", 0, 5, TokenType::kU16, "gpt2");
  EXPECT_EQ(TokenFiles({b, a}).tokenizer().name, "counted");
  EXPECT_FALSE(TokenFiles({b}).tokenizer().known());
  const std::string message = thrown_by<DataError>([&] { TokenFiles({a, b, c}); });
  EXPECT_NE(message.find("/c\": was made by tokenizer \"gpt2\", \""), std::string::npos) << message;
}

TEST_F(TokenFilesTest, LookForIdsOutOfRangeWhereNoSidecarSpeaks) {
  const auto a = write("a", 0, 100), b = write("b", 0, 300);
  TokenFiles told({a, b});
  EXPECT_EQ(thrown_by<DataError>([&] { told.require_sampled_ids_below(200); }), "nothing");
  std::filesystem::remove(b.string() + ".json");
  TokenFiles files({a, b});
  EXPECT_EQ(files.vocab(), 100);
  const std::string message = thrown_by<DataError>([&] { files.require_sampled_ids_below(200); });
  EXPECT_NE(message.find("/b\": token 200 is id 200"), std::string::npos) << message;
}

// 1,000 parts of 100 million tokens are no rare data set, and 1,024 descriptors the usual limit.
TEST_F(TokenFilesTest, MayBeMoreThanTheUsualLimitOfOpenFiles) {
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  if (before.rlim_max <= 128) GTEST_SKIP() << "the hard limit is as low";
  const auto a = write("a", 0, 5);
  std::vector<std::filesystem::path> paths;
  for (int i = 0; i < 100; ++i) {
    paths.push_back(a.string() + fmt::format("-{}", i));
    std::filesystem::copy_file(a, paths.back());
  }
  const rlimit low{.rlim_cur = 64, .rlim_max = before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &low), 0);
  std::int64_t tokens = 0;
  EXPECT_NO_THROW(tokens = TokenFiles(paths).tokens());
  EXPECT_EQ(tokens, 500);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
}

TEST_F(TokenFilesTest, NoticeAFileThatShrinksWhileInUse) {
  const auto a = write("a", 0, 5), b = write("b", 5, 100);
  TokenFiles files({a, b});
  std::filesystem::resize_file(b, 1024 + 20);
  std::vector<std::int32_t> ids(20);
  const std::string message = thrown_by<DataError>([&] { files.read(0, ids); });
  EXPECT_NE(message.find("/b\": expected"), std::string::npos) << message;
  EXPECT_NE(message.find("truncated while in use"), std::string::npos) << message;
}

}  // namespace
}  // namespace strake::data
