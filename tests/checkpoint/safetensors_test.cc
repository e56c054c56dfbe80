#include "checkpoint/safetensors.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>
#include <random>

#include "runtime/base/error.h"
#include "tests/support/memory_files.h"

namespace strake::checkpoint {
namespace {

namespace fs = std::filesystem;
using test::MemoryFiles;

constexpr std::uint64_t kWholeFile = 1 << 20;
const fs::path kFile = "/model/model.safetensors";

void put(Files& files, const fs::path& path, const std::string& content) {
  files.open(path, OpenMode::kReplace)->write(bytes_of(content), 0);
}

// The bytes of a file with this header.
std::string file_of(const std::string& header, const std::string& data) {
  std::string content(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) content[i] = static_cast<char>(header.size() >> (8 * i) & 0xff);
  return content + header + data;
}

template <typename T>
std::string raw(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

std::vector<float> floats(const Safetensors& source, const std::string& name) {
  const SafetensorsEntry* entry = source.find(name);
  if (entry == nullptr) return {};
  std::vector<float> values(static_cast<std::size_t>(entry->elems()));
  source.read_f32(*entry, 0, values);
  return values;
}

class SafetensorsTest : public testing::Test {
 protected:
  SafetensorsTest() { files_.make_directories("/model"); }

  std::string message_of(const std::string& header, const std::string& data) {
    return message_of_file(file_of(header, data));
  }
  std::string message_of_file(const std::string& content) {
    put(files_, kFile, content);
    try {
      Safetensors::open(files_, kFile);
    } catch (const CorruptError& error) {
      return error.what();
    }
    return "no error";
  }
  void expect_refused(const std::string& header, const std::string& data, const std::string& part) {
    const std::string message = message_of(header, data);
    EXPECT_NE(message.find(part), message.npos) << message << "\nof header " << header;
    EXPECT_NE(message.find(kFile.string()), message.npos) << message;
  }

  MemoryFiles files_;
};

TEST_F(SafetensorsTest, WritesWhatItReads) {
  const std::vector<SafetensorsSpec> specs{{"b.weight", DType::kF32, {2, 3}},
                                           {"a.bias", DType::kBF16, {2}},
                                           {"empty", DType::kF32, {0, 4}},
                                           {"scalar", DType::kF32, {}}};
  const std::vector<float> matrix{1, -2, 0.5f, 3e30f, -0.0f, 7};
  SafetensorsWriter writer(files_, kFile, specs, {{"format", "pt"}});
  writer.append(std::as_bytes(std::span(matrix).first(4)));  // in pieces that are no tensors
  EXPECT_FALSE(files_.exists(kFile)) << "a file that is not whole has the name";
  writer.append(std::as_bytes(std::span(matrix).last(2)));
  const std::vector<BFloat16> bias{to_bfloat16(1.5f), to_bfloat16(-4)};
  writer.append(std::as_bytes(std::span(bias)));
  const std::vector<float> scalar{42};
  writer.append(std::as_bytes(std::span(scalar)));
  writer.finish();
  EXPECT_EQ(files_.list("/model"), std::vector<std::string>{"model.safetensors"});

  const Safetensors source = Safetensors::open(files_, "/model");
  ASSERT_EQ(source.entries().size(), 4u);
  EXPECT_EQ(floats(source, "b.weight"), matrix);
  EXPECT_TRUE(std::signbit(floats(source, "b.weight")[4]));
  EXPECT_EQ(floats(source, "a.bias"), (std::vector<float>{1.5f, -4}));
  EXPECT_EQ(floats(source, "scalar"), scalar);
  EXPECT_EQ(source.find("empty")->elems(), 0);
  EXPECT_EQ(source.find("b.weight")->shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(source.find("nothing"), nullptr);
  std::vector<float> part(2);
  source.read_f32(*source.find("b.weight"), 3, part);
  EXPECT_EQ(part, (std::vector<float>{3e30f, -0.0f}));
}

// The bytes that the format's own library writes for these tensors.
TEST_F(SafetensorsTest, WritesTheseBytes) {
  const std::vector<SafetensorsSpec> specs{{"a", DType::kF32, {1, 2}}, {"b", DType::kF32, {1}}};
  SafetensorsWriter writer(files_, kFile, specs, {{"format", "pt"}});
  const std::vector<float> values{1, 2, 3};
  writer.append(std::as_bytes(std::span(values)));
  writer.finish();
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},)"
      R"("b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}})";
  const std::string padded = header + std::string((8 - header.size() % 8) % 8, ' ');
  EXPECT_EQ(read_file(files_, kFile, kWholeFile), file_of(padded, raw(values)));
}

TEST_F(SafetensorsTest, EveryHalfIsExact) {
  std::vector<std::uint16_t> bits(1 << 16);
  std::iota(bits.begin(), bits.end(), std::uint16_t{0});
  for (const char* dtype : {"F16", "BF16"}) {
    put(files_, kFile,
        file_of(fmt::format(R"({{"x":{{"dtype":"{}","shape":[65536],"data_offsets":[0,131072]}}}})", dtype),
                raw(bits)));
    const std::vector<float> values = floats(Safetensors::open(files_, kFile), "x");
    ASSERT_EQ(values.size(), bits.size());
    const bool half = std::string(dtype) == "F16";
    const int mantissa_bits = half ? 10 : 7, most = half ? 31 : 255, bias = half ? 15 : 127;
    for (std::size_t i = 0; i < bits.size(); ++i) {
      const int exponent = static_cast<int>(i >> mantissa_bits) & most;
      const int mantissa = static_cast<int>(i) & ((1 << mantissa_bits) - 1);
      const double sign = (i & 0x8000) != 0 ? -1 : 1;
      if (exponent == most && mantissa != 0) {
        ASSERT_TRUE(std::isnan(values[i])) << dtype << " " << i;
        continue;
      }
      const double magnitude = exponent == most ? INFINITY
                               : exponent == 0
                                   ? std::ldexp(mantissa, 1 - bias - mantissa_bits)
                                   : std::ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
      ASSERT_EQ(static_cast<double>(values[i]), sign * magnitude) << dtype << " " << i;
      ASSERT_EQ(std::signbit(values[i]), sign < 0) << dtype << " " << i;
    }
  }
}

TEST_F(SafetensorsTest, OtherTypesAreHeldAndNotConverted) {
  put(files_, kFile, file_of(R"({"mask":{"dtype":"BOOL","shape":[4],"data_offsets":[0,4]}})", std::string(4, '\1')));
  const Safetensors source = Safetensors::open(files_, kFile);
  std::vector<std::byte> mask(4);
  source.read(*source.find("mask"), 0, mask);
  EXPECT_EQ(mask[3], std::byte{1});
  try {
    floats(source, "mask");
    FAIL() << "converted";
  } catch (const CorruptError& error) {
    EXPECT_NE(std::string(error.what()).find("BOOL"), std::string::npos) << error.what();
  }
}

TEST_F(SafetensorsTest, RefusesWhatDoesNotAgree) {
  const auto one = [](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return fmt::format(R"({{"w":{{"dtype":{},"shape":{},"data_offsets":{}}}}})", dtype, shape, offsets);
  };
  const std::string data(8, '\0');
  EXPECT_EQ(message_of(one(R"("F32")", "[2]", "[0,8]"), data), "no error");

  expect_refused(one(R"("F4")", "[2]", "[0,8]"), data, "dtype \"F4\", which is not known");
  expect_refused(one("4", "[2]", "[0,8]"), data, "dtype");
  expect_refused(one(R"("F32")", "[3]", "[0,8]"), data, "8 bytes, its dtype and shape need 12");
  expect_refused(one(R"("F16")", "[2]", "[0,8]"), data, "need 4");
  expect_refused(one(R"("F32")", "[2]", "[0,9]"), data, "the file holds 8 bytes");
  expect_refused(one(R"("F32")", "[2]", "[8,0]"), data, "data_offsets");
  expect_refused(one(R"("F32")", "[2]", "[-8,0]"), data, "data_offsets");
  expect_refused(one(R"("F32")", "[2]", "[0]"), data, "data_offsets");
  expect_refused(one(R"("F32")", "[2]", "[0,18446744073709551616]"), data, "data_offsets");
  expect_refused(one(R"("F32")", "[-2]", "[0,8]"), data, "whole numbers");
  expect_refused(one(R"("F32")", "[2.0]", "[0,8]"), data, "whole numbers");
  expect_refused(one(R"("F32")", "2", "[0,8]"), data, "shape");
  // Products that wrap around to 2 elements in 64 bits.
  expect_refused(one(R"("F32")", "[4294967296,4294967296,2]", "[0,8]"), data, "too many elements");
  expect_refused(one(R"("F32")", "[9223372036854775807,2]", "[0,8]"), data, "too many elements");
  expect_refused(R"({"w":{"dtype":"F32","shape":[2]}})", data, "not described by");
  expect_refused(R"({"w":[1,2,3]})", data, "not described by");
  expect_refused(R"([1])", data, "not an object");
  expect_refused(R"({"w":)", data, "not valid");
  expect_refused(std::string(1000, '['), data, "nested too deeply");
  expect_refused(R"({"__metadata__":{"a":1}})", "", "holds more than texts");
  // Two tensors, 8 bytes of data.
  const auto two = [](const char* name, const char* first, const char* second) {
    return fmt::format(R"({{"a":{{"dtype":"F32","shape":[1],"data_offsets":{}}},)"
                       R"("{}":{{"dtype":"F32","shape":[1],"data_offsets":{}}}}})",
                       first, name, second);
  };
  EXPECT_EQ(message_of(two("b", "[4,8]", "[0,4]"), data), "no error");
  expect_refused(two("b", "[0,4]", "[0,4]"), data, "begins at byte 0 of the data, the one before it ends at 4");
  expect_refused(two("b", "[0,4]", "[2,6]"), data, "begins at byte 2");
  expect_refused(two("a", "[0,4]", "[4,8]"), data, "\"a\" stands twice");
  expect_refused(two("b", "[0,4]", "[4,8]"), data + "more", "12 bytes of data, its tensors have 8");
  expect_refused(R"({"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})", data, "stands twice");
}

TEST_F(SafetensorsTest, RefusesFilesThatAreNone) {
  EXPECT_NE(message_of_file("").find("too short"), std::string::npos);
  EXPECT_NE(message_of_file("1234567").find("too short"), std::string::npos);
  EXPECT_NE(message_of_file("PK\x03\x04 an archive, perhaps of PyTorch").find("no safetensors file"),
            std::string::npos);
  EXPECT_NE(message_of_file(std::string(8, '\xff') + "{}").find("no safetensors file"), std::string::npos);
  EXPECT_NE(message_of_file(std::string(8, '\0')).find("not valid"), std::string::npos);
  EXPECT_EQ(message_of_file(file_of("{}", "")), "no error");
  EXPECT_THROW(Safetensors::open(files_, "/nowhere"), IoError);
  files_.make_directories("/empty");
  EXPECT_THROW(Safetensors::open(files_, "/empty"), ConfigError);
}

class ShardedTest : public SafetensorsTest {
 protected:
  ShardedTest() {
    put(files_, "/model/one.safetensors", one("a", 1));
    put(files_, "/model/two.safetensors", one("b", 2));
  }
  static std::string one(const std::string& name, float value) {
    return file_of(fmt::format(R"({{"{}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}})", name),
                   raw(std::vector<float>{value}));
  }
  void expect_index_refused(const std::string& map, const std::string& part) {
    put(files_, "/model/model.safetensors.index.json", fmt::format(R"({{"weight_map":{}}})", map));
    try {
      Safetensors::open(files_, "/model");
      FAIL() << map;
    } catch (const CorruptError& error) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  }
};

TEST_F(ShardedTest, IsReadAsOne) {
  put(files_, "/model/model.safetensors.index.json",
      R"({"metadata":{"total_size":8},"weight_map":{"b":"two.safetensors","a":"one.safetensors"}})");
  const Safetensors source = Safetensors::open(files_, "/model");
  EXPECT_EQ(floats(source, "a"), std::vector<float>{1});
  EXPECT_EQ(floats(source, "b"), std::vector<float>{2});
}

TEST_F(ShardedTest, RefusesAnIndexThatIsWrong) {
  expect_index_refused("[]", "no weight_map");
  expect_index_refused("{}", "its weight_map is empty");
  expect_index_refused(R"({"a":"one.safetensors","b":"one.safetensors"})", "lists tensors that its files do not hold");
  expect_index_refused(R"({"b":"one.safetensors","a":"two.safetensors"})", "not listed there");
  expect_index_refused(R"({"a":"one.safetensors","b":"../model/two.safetensors"})", "not in a file beside it");
  expect_index_refused(R"({"a":"one.safetensors","b":"/model/two.safetensors"})", "not in a file beside it");
  expect_index_refused(R"({"a":"one.safetensors","b":2})", "not in a file beside it");
  expect_index_refused(R"({"a":"one.safetensors","b":"three.safetensors"})",
                       "names \"three.safetensors\", which is not there");
  put(files_, "/model/two.safetensors", one("a", 2));  // a second "a"
  expect_index_refused(R"({"a":"one.safetensors","b":"two.safetensors"})", "not listed there");
}

TEST_F(ShardedTest, EveryDamageOfTheIndexIsAnErrorOrHarmless) {
  const std::string whole =
      R"({"metadata":{"total_size":8},"weight_map":{"b":"two.safetensors","a":"one.safetensors"}})";
  const auto refused = [&](const std::string& index) {
    put(files_, "/model/model.safetensors.index.json", index);
    try {
      const Safetensors source = Safetensors::open(files_, "/model");
      EXPECT_EQ(floats(source, "a"), std::vector<float>{1}) << index;
      EXPECT_EQ(floats(source, "b"), std::vector<float>{2}) << index;
      EXPECT_EQ(source.entries().size(), 2u) << index;
      return false;
    } catch (const CorruptError& error) {
      EXPECT_NE(std::string(error.what()).find("index.json"), std::string::npos) << error.what();
      return true;
    }
  };
  ASSERT_FALSE(refused(whole));
  for (std::size_t length = 0; length < whole.size(); ++length) EXPECT_TRUE(refused(whole.substr(0, length)));
  std::size_t harmless = 0, tried = 0;
  for (std::size_t at = 0; at < whole.size(); ++at) {
    for (const char byte : {'"', '{', '}', '[', ':', ',', '/', '.', '\\', '0', 'a', '\0', '\xff'}) {
      std::string damaged = whole;
      damaged[at] = byte;
      harmless += refused(damaged) ? 0 : 1;
      ++tried;
    }
  }
  EXPECT_LT(harmless, tried / 4) << "the metadata alone may change";
}

TEST_F(SafetensorsTest, EveryDamageOfTheHeaderIsAnErrorOrHarmless) {
  const std::vector<SafetensorsSpec> specs{{"h.0.w", DType::kF32, {2, 3}}, {"h.0.b", DType::kBF16, {6}}};
  SafetensorsWriter writer(files_, kFile, specs, {{"format", "pt"}});
  std::vector<std::byte> data(36);
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(i + 1);
  writer.append(data);
  writer.finish();
  const std::string whole = read_file(files_, kFile, kWholeFile);
  const std::vector<SafetensorsEntry> sound = Safetensors::open(files_, kFile).entries();
  const std::size_t data_begin = whole.size() - data.size();

  for (std::size_t length = 0; length < whole.size(); ++length) {
    EXPECT_NE(message_of_file(whole.substr(0, length)), "no error") << "cut to " << length << " bytes";
  }
  EXPECT_NE(message_of_file(whole + '\0'), "no error");

  std::size_t refused = 0, accepted = 0;
  for (std::size_t at = 0; at < data_begin; ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string damaged = whole;
      damaged[at] = static_cast<char>(damaged[at] ^ 1 << bit);
      put(files_, kFile, damaged);
      try {
        const Safetensors source = Safetensors::open(files_, kFile);
        ++accepted;
        // What got through is a name or a text of the metadata: the tensors lie where they lay.
        ASSERT_EQ(source.entries().size(), sound.size()) << "bit " << bit << " of byte " << at;
        std::uint64_t bytes = 0;
        for (const SafetensorsEntry& entry : source.entries()) {
          std::vector<std::byte> content(entry.size_bytes);
          source.read(entry, 0, content);
          ASSERT_EQ(0, std::memcmp(content.data(), whole.data() + entry.offset_bytes, content.size()));
          bytes += entry.size_bytes;
        }
        ASSERT_EQ(bytes, data.size());
      } catch (const CorruptError&) {
        ++refused;
      }
    }
  }
  EXPECT_GT(refused, 8 * accepted) << "refused " << refused << ", accepted " << accepted;
}

TEST_F(SafetensorsTest, RandomHeadersNeverCrash) {
  std::mt19937 random(7);
  static const char* const kPieces[] = {
      "{",         "}",       "[",    "]",          ",",   ":",         "\"a\"",
      "\"dtype\"", "\"F32\"", "0",    "4",          "1e9", "\"shape\"", "\"data_offsets\"",
      "-1",        "null",    "\xff", "\"\\u0000\""};
  for (int trial = 0; trial < 3000; ++trial) {
    std::string header = trial % 2 == 0 ? R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})" : "";
    for (unsigned i = random() % 12; i > 0; --i) {
      header.insert(random() % (header.size() + 1), kPieces[random() % std::size(kPieces)]);
    }
    try {
      parse_safetensors_header(header, 8 + header.size() + 4, "random");
    } catch (const CorruptError&) {
    }
  }
}

TEST_F(SafetensorsTest, AFileIsPublishedWholeOrNotAtAll) {
  const std::vector<SafetensorsSpec> specs{{"a", DType::kF32, {2}}};
  const std::vector<float> old_values{1, 2}, new_values{3, 4};
  const auto write = [&](const std::vector<float>& values) {
    SafetensorsWriter writer(files_, kFile, specs);
    writer.append(std::as_bytes(std::span(values)));
    writer.finish();
  };
  write(old_values);
  {
    SafetensorsWriter given_up(files_, kFile, specs);
    given_up.append(std::as_bytes(std::span(new_values).first(1)));
  }
  EXPECT_EQ(files_.list("/model").size(), 1u) << "what was given up is still there";
  EXPECT_EQ(floats(Safetensors::open(files_, kFile), "a"), old_values);
  write(new_values);
  std::mt19937 random(1);
  files_.power_loss(random);
  EXPECT_EQ(floats(Safetensors::open(files_, kFile), "a"), new_values) << "finish() had returned";
  files_.set_free_bytes(20);
  EXPECT_THROW(write(old_values), IoError);
  EXPECT_EQ(files_.list("/model").size(), 1u);
}

}  // namespace
}  // namespace strake::checkpoint
