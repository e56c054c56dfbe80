#include "launch/plan/memory_size.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

namespace strake::launch {
namespace {

TEST(MemorySize, IsANumberAndAUnit) {
  EXPECT_EQ(memory_size_from("80GiB"), std::uint64_t{80} << 30);
  EXPECT_EQ(memory_size_from("80 GiB"), std::uint64_t{80} << 30);
  EXPECT_EQ(memory_size_from("1.5TiB"), std::uint64_t{3} << 39);
  EXPECT_EQ(memory_size_from("512MiB"), std::uint64_t{1} << 29);
  EXPECT_EQ(memory_size_from("80GB"), 80'000'000'000u);
  EXPECT_EQ(memory_size_from("2TB"), 2'000'000'000'000u);
  EXPECT_EQ(memory_size_from("7MB"), 7'000'000u);
  EXPECT_EQ(memory_size_from("1KiB"), 1024u);
  EXPECT_EQ(memory_size_from("3KB"), 3000u);
}

TEST(MemorySize, NothingElseIs) {
  for (const char* text : {"",
                           "80",
                           "GiB",
                           "80gib",
                           "80Gi",
                           "80GiBs",
                           "80  GiB",
                           " 80GiB",
                           "80GiB ",
                           "-1GiB",
                           "+1GiB",
                           "0GiB",
                           "0.0MB",
                           "1e3GiB",
                           "0x10GiB",
                           "nanGiB",
                           "infGiB",
                           "1,5GiB",
                           "1TiB1GiB",
                           "80\tGiB",
                           "2000000TiB",
                           "99999999999999999999999999999999999999999999999999GiB",
                           "0.00000000000001MB"}) {
    EXPECT_EQ(memory_size_from(text), std::nullopt) << '"' << text << '"';
  }
}

TEST(MemorySize, AnyTextIsReadOrRefused) {
  std::mt19937 random(7);
  const std::string letters("0123456789.eE+- MGTiBnax\0\xff", 26);
  for (int i = 0; i < 200'000; ++i) {
    std::string text;
    for (std::size_t size = random() % 9; text.size() < size;) text += letters[random() % letters.size()];
    const auto read = memory_size_from(text);
    if (!read.has_value()) continue;
    EXPECT_GE(*read, 1u) << text;
    EXPECT_LE(*read, std::uint64_t{1} << 60) << text;
    EXPECT_TRUE(text.ends_with('B')) << text;
  }
}

TEST(MemorySize, IsWrittenInGiBOrMiB) {
  EXPECT_EQ(memory_size_text(std::uint64_t{3} << 29), "1.50 GiB");
  EXPECT_EQ(memory_size_text(std::uint64_t{1} << 29), "512.00 MiB");
  EXPECT_EQ(memory_size_text(0), "0.00 MiB");
}

}  // namespace
}  // namespace strake::launch
