#include "checkpoint/manifest.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

#include "runtime/base/error.h"
#include "runtime/io/crc32c.h"
#include "runtime/io/files.h"
#include "tests/checkpoint/counted_allocation.h"

namespace strake::checkpoint {
namespace {

using Json = nlohmann::json;

Manifest example() {
  Manifest manifest;
  manifest.meta = {.step = 1234,
                   .tokens = 5'000'000'000,
                   .attempt = 2,
                   .data_cursor = "{\"next\": 77}",
                   .tokenizer = "bytes \"quoted\" \u00e9",
                   .model = R"({"layers":12})",
                   .choices = "",
                   .config = R"({"train": {"steps": 7}})",
                   .config_hash = "abcd",
                   .step_metrics = R"({"loss": 2.5})",
                   .held_out_loss = 2.0625,
                   .world_size = 2};
  manifest.files = {{"rank-0000.h5", 10'000, 4096, {1, 2, 4'294'967'295}}, {"rank-0001.h5", 5'000, 4096, {7, 8}}};
  manifest.tensors = {{"adam_m/w", DType::kF64, {3, 5}, {{1, 2'000, 0, 7}, {0, 4'096, 7, 8}}},
                      {"param/w", DType::kBF16, {11}, {{0, 2'048, 0, 11}}}};
  return manifest;
}

// A body with a right checksum, whatever the body is.
std::string sealed(const std::string& body) {
  std::string text = R"({"manifest":)" + body;
  return text + fmt::format(R"(,"crc32c":"{:08x}"}})", crc32c(bytes_of(text))) + "\n";
}
Json body_of(const Manifest& manifest) { return Json::parse(serialize(manifest)).at("manifest"); }

std::string refusal(const std::string& text) {
  try {
    parse_manifest(text, "ckpt/manifest.json");
  } catch (const CorruptError& error) {
    EXPECT_NE(std::string(error.what()).find("ckpt/manifest.json: "), std::string::npos);
    return error.what();
  }
  return "accepted";
}

TEST(Manifest, RoundTrips) {
  const Manifest manifest = example();
  const std::string text = serialize(manifest);
  EXPECT_EQ(parse_manifest(text, "m"), manifest);
  EXPECT_EQ(serialize(parse_manifest(text, "m")), text);
  EXPECT_EQ(text, sealed(body_of(manifest).dump()));
  EXPECT_EQ(manifest.total_bytes(), 15'000u);
  EXPECT_EQ(manifest.find("param/w"), &manifest.tensors[1]);
  EXPECT_EQ(manifest.find("param"), nullptr);
}

TEST(Manifest, EveryPrefixAndEveryFlippedBitIsRefused) {
  const std::string text = serialize(example());
  for (std::size_t length = 0; length < text.size(); ++length) {
    EXPECT_NE(refusal(text.substr(0, length)), "accepted") << length;
  }
  for (std::size_t bit = 0; bit < text.size() * 8; ++bit) {
    std::string flipped = text;
    flipped[bit / 8] ^= static_cast<char>(1 << bit % 8);
    EXPECT_NE(refusal(flipped), "accepted") << bit;
  }
}

TEST(Manifest, ALaterMajorVersionIsIncompatibleAndNotDamaged) {
  Json body = body_of(example());
  body["format"]["minor"] = 9;
  EXPECT_EQ(refusal(sealed(body.dump())), "accepted");
  body["format"]["major"] = 2;
  EXPECT_THROW(parse_manifest(sealed(body.dump()), "m"), IncompatibleCheckpointError);
}

TEST(Manifest, VersionOneZeroHadNoConfig) {
  Json body = body_of(example());
  body["format"]["minor"] = 0;
  body.erase("config");
  body.erase("step_metrics");
  const Manifest manifest = parse_manifest(sealed(body.dump()), "m");
  EXPECT_EQ(manifest.meta.config, "");
  EXPECT_EQ(manifest.meta.config_hash, example().meta.config_hash);
}

TEST(Manifest, VersionOneOneHadNeitherHeldOutLossNorStepMetrics) {
  Json body = body_of(example());
  body["format"]["minor"] = 1;
  body.erase("held_out_loss");
  body.erase("step_metrics");
  const Manifest manifest = parse_manifest(sealed(body.dump()), "m");
  EXPECT_EQ(manifest.meta.held_out_loss, std::nullopt);
  EXPECT_EQ(manifest.meta.step_metrics, "");
  EXPECT_EQ(manifest.meta.config, example().meta.config);
}

TEST(Manifest, AHeldOutLossIsKeptToTheLastBitOrNotAtAll) {
  Manifest manifest = example();
  for (const std::optional<double> loss : {std::optional(0.1), std::optional(1.0 / 3), std::optional(5e-324),
                                           std::optional(1e300), std::optional(2.0), std::optional<double>()}) {
    manifest.meta.held_out_loss = loss;
    EXPECT_EQ(parse_manifest(serialize(manifest), "m").meta.held_out_loss, loss);
  }
  Json body = body_of(example());
  EXPECT_EQ(body["held_out_loss"], "2.0625");
  for (const char* text : {"2.06250", "+2", " 2", "2,5", "inf", "nan", "1e999", "two", "0x1"}) {
    body["held_out_loss"] = text;
    EXPECT_NE(refusal(sealed(body.dump())), "accepted") << text;
  }
}

TEST(Manifest, EveryFieldIsNeeded) {
  const Json body = body_of(example());
  const Json flat = body.flatten();
  for (const auto& pointer : flat.items()) {
    // Not inside lists of numbers: there a missing one is a matter of counts, below.
    const Json::json_pointer at(pointer.key());
    if (body.at(at.parent_pointer()).is_array()) continue;
    Json without = body;
    without.at(at.parent_pointer()).erase(at.back());
    EXPECT_NE(refusal(sealed(without.dump())), "accepted") << pointer.key();
    Json other_type = body;
    other_type[at] = body[at].is_string() ? Json(1) : Json("1");
    EXPECT_NE(refusal(sealed(other_type.dump())), "accepted") << pointer.key();
    if (body[at].is_number()) {
      for (const Json& value : {Json(-1), Json(1.5), Json(18'446'744'073'709'551'615u), Json(nullptr)}) {
        Json odd = body;
        odd[at] = value;
        EXPECT_NE(refusal(sealed(odd.dump())), "accepted") << pointer.key() << " " << value;
      }
    }
  }
}

struct BadManifest {
  const char* name;
  void (*change)(Json& body);
  const char* complaint;
};
const BadManifest kBad[] = {
    {"PathEscape", [](Json& b) { b["files"][0]["name"] = "../rank-0000.h5"; }, "name that is not allowed"},
    {"AbsolutePath", [](Json& b) { b["files"][0]["name"] = "/etc/passwd"; }, "name that is not allowed"},
    {"HiddenFile", [](Json& b) { b["files"][0]["name"] = ".x"; }, "name that is not allowed"},
    {"ManifestAsShard", [](Json& b) { b["files"][0]["name"] = "manifest.json"; }, "name that is not allowed"},
    {"LongName", [](Json& b) { b["files"][0]["name"] = std::string(65, 'a'); }, "name that is not allowed"},
    {"FileTwice", [](Json& b) { b["files"][1]["name"] = "rank-0000.h5"; }, "listed twice"},
    {"TensorDots", [](Json& b) { b["tensors"][0]["name"] = "adam_m/../w"; }, "name that is not allowed"},
    {"TensorTwice", [](Json& b) { b["tensors"][1]["name"] = "adam_m/w"; }, "listed twice"},
    {"TooFewChecksums", [](Json& b) { b["files"][0]["crc32c"].erase(0); }, "checksums for"},
    {"TooManyChecksums", [](Json& b) { b["files"][0]["crc32c"].push_back(1); }, "checksums for"},
    {"NoChecksums", [](Json& b) { b["files"][0].erase("crc32c"); }, "'crc32c' is missing"},
    {"WideChecksum", [](Json& b) { b["files"][0]["crc32c"][0] = 4'294'967'296; }, "is not an integer"},
    {"HugeChunk", [](Json& b) { b["files"][0]["chunk_bytes"] = std::uint64_t{1} << 40; }, "is not an integer"},
    {"ZeroChunk", [](Json& b) { b["files"][0]["chunk_bytes"] = 0; }, "is not an integer"},
    {"UnknownDtype", [](Json& b) { b["tensors"][0]["dtype"] = "f8"; }, "unknown dtype"},
    {"ShapeOverflow",
     [](Json& b) {
       b["tensors"][0]["shape"] = {std::int64_t{1} << 40, std::int64_t{1} << 40, std::int64_t{1} << 40};
     },
     "too large"},
    {"ZeroExtent",
     [](Json& b) {
       b["tensors"][0]["shape"] = {0, 5};
     },
     "is not an integer"},
    {"ManyAxes", [](Json& b) { b["tensors"][0]["shape"] = {1, 1, 1, 1, 1, 1, 1, 3, 5}; }, "too many axes"},
    {"Gap", [](Json& b) { b["tensors"][0]["shards"][1]["begin_elems"] = 8; }, "not covered exactly once"},
    {"Overlap", [](Json& b) { b["tensors"][0]["shards"][1]["begin_elems"] = 6; }, "not covered exactly once"},
    {"ShortCover", [](Json& b) { b["tensors"][0]["shards"].erase(1); }, "ends at element"},
    {"NoShards", [](Json& b) { b["tensors"][0]["shards"] = Json::array(); }, "ends at element"},
    {"WrongBytes", [](Json& b) { b["tensors"][0]["shards"][0]["bytes"] = 55; }, "wrong number of bytes"},
    {"BeyondTheEnd", [](Json& b) { b["tensors"][0]["shards"][0]["offset"] = 4'990; }, "beyond the end"},
    {"OffsetOverflow", [](Json& b) { b["tensors"][0]["shards"][0]["offset"] = (std::uint64_t{1} << 62) - 1; },
     "beyond the end"},
    {"NoSuchFile", [](Json& b) { b["tensors"][0]["shards"][0]["file"] = 2; }, "is not an integer"},
    {"SharedBytes", [](Json& b) { b["tensors"][1]["shards"][0]["offset"] = 4'100; }, "share bytes"},
};
class Bad : public ::testing::TestWithParam<BadManifest> {};
INSTANTIATE_TEST_SUITE_P(Manifests, Bad, ::testing::ValuesIn(kBad),
                         [](const auto& value) { return std::string(value.param.name); });
TEST_P(Bad, IsRefusedForTheRightReason) {
  Json body = body_of(example());
  GetParam().change(body);
  EXPECT_NE(refusal(sealed(body.dump())).find(GetParam().complaint), std::string::npos) << refusal(sealed(body.dump()));
}

TEST(Manifest, OnlyTheCanonicalFormIsAccepted) {
  const std::string body = body_of(example()).dump();
  EXPECT_EQ(refusal(sealed(body)), "accepted");
  EXPECT_NE(refusal(sealed(body + " ")).find("canonical"), std::string::npos);
  EXPECT_NE(refusal(sealed("{\"step\":7," + body.substr(1))).find("canonical"), std::string::npos);  // a key twice
  EXPECT_NE(refusal(sealed(std::string(100'000, '[') + std::string(100'000, ']'))).find("nested"), std::string::npos);
  EXPECT_NE(refusal(sealed("[" + std::string(5 << 20, ',') + "]")).find("too many"), std::string::npos);
  EXPECT_NE(refusal(std::string((64 << 20) + 1, ' ')).find("larger"), std::string::npos);
}

TEST(Manifest, TextThatIsNotUtf8IsAConfigurationError) {
  Manifest manifest = example();
  manifest.meta.tokenizer = "\xff";
  EXPECT_THROW(serialize(manifest), ConfigError);
}

TEST(Names, OfTensorsAndFiles) {
  for (const char* name : {"param/h.0.attn.qkv.weight", "a", "A-1_b/c", ".hidden/x"}) {
    EXPECT_TRUE(valid_tensor_name(name)) << name;
  }
  for (const char* name :
       {"", "/a", "a/", "a//b", "a/../b", "..", ".", "./a", "a/.", "a/./b", "a b", "a\nb", "\xc3\xa9"}) {
    EXPECT_FALSE(valid_tensor_name(name)) << name;
  }
  for (const char* name : {"rank-0000.h5", "0", "a_b"}) EXPECT_TRUE(valid_file_name(name)) << name;
  for (const char* name : {"", ".a", "-a", "a/b", "A", "a..b", "a b"}) EXPECT_FALSE(valid_file_name(name)) << name;
}

// Deterministic fuzzing behind the checksum: no crash, and whatever is accepted is proven and survives a round trip.
TEST(ManifestFuzz, NeverCrashesAndAcceptsOnlyWhatHolds) {
  constexpr unsigned kSeed = 20'260;
#ifdef STRAKE_SANITIZED
  constexpr int kExecutions = 5'000;
#else
  constexpr int kExecutions = 200'000;
#endif
  std::printf("seed %u\n", kSeed);
  std::mt19937 random(kSeed);
  const std::string valid = body_of(example()).dump();
  static const std::string kTokens[] = {"0",
                                        "-1",
                                        "1e9",
                                        "18446744073709551615",
                                        "9223372036854775808",
                                        "[]",
                                        "{}",
                                        "null",
                                        "true",
                                        "\"\"",
                                        "\"..\"",
                                        "\"\\u0000\"",
                                        ",",
                                        ":",
                                        "[[[[[[[[[",
                                        "}",
                                        "]",
                                        "\"step\":",
                                        "\"shards\":[",
                                        "\"files\":[]"};
  int accepted = 0;
  for (int execution = 0; execution < kExecutions; ++execution) {
    std::string body = valid;
    for (unsigned mutations = 1 + random() % 4; mutations > 0 && !body.empty(); --mutations) {
      const std::size_t at = random() % body.size();
      switch (random() % 6) {
        case 0:
          body[at] = static_cast<char>(random());
          break;
        case 1:
          body[at] = static_cast<char>('0' + random() % 10);
          break;
        case 2:
          body.erase(at, 1 + random() % 20);
          break;
        case 3:
          body.insert(at, body.substr(random() % body.size(), 1 + random() % 40));
          break;
        case 4:
          body.insert(at, kTokens[random() % std::size(kTokens)]);
          break;
        case 5:
          body.replace(at, 1 + random() % 8, kTokens[random() % std::size(kTokens)]);
          break;
      }
    }
    const std::string text = sealed(body);
    const std::size_t allocated_before = test::allocated_bytes();
    try {
      const Manifest manifest = parse_manifest(text, "m");
      ++accepted;
      for (const TensorRecord& tensor : manifest.tensors) {
        std::int64_t covered = 0;
        for (const ShardRecord& shard : tensor.shards) {
          ASSERT_EQ(shard.begin_elems, covered);
          covered += shard.elems;
          ASSERT_LE(shard.offset_bytes + static_cast<std::uint64_t>(shard.elems) * size_bytes(tensor.dtype),
                    manifest.files.at(shard.file).size_bytes);
        }
        ASSERT_EQ(covered, tensor.elems());
      }
      ASSERT_EQ(parse_manifest(serialize(manifest), "m"), manifest);
    } catch (const CorruptError&) {
    } catch (const IncompatibleCheckpointError&) {
    }
    ASSERT_LE(test::allocated_bytes() - allocated_before, 256 * text.size()) << "execution " << execution;
  }
  EXPECT_GT(accepted, kExecutions / 100);  // the mutations reach behind the first checks
}

}  // namespace
}  // namespace strake::checkpoint
