#include "launch/bench/kernel_comparison.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "runtime/base/error.h"
#include "tests/support/scratch_folder.h"

namespace strake::launch {
namespace {

using Json = nlohmann::json;

KernelTimes times(std::vector<KernelTimes::Row> rows) {
  KernelTimes out{
      .device = "a GPU", .config_hash = "0123", .step_ms = 100, .operations_ms = 0, .rows = std::move(rows)};
  for (const KernelTimes::Row& row : out.rows) out.operations_ms += row.step_ms;
  return out;
}

TEST(KernelComparison, PutsWhatBecameFasterFirst) {
  const KernelComparison compared = compare(
      "before.json", times({{"norm", "bf16 8x8", 24, 6}, {"gelu", "bf16 8x32", 12, 3}, {"fc", "8x8x8", 12, 20}}),
      times({{"fc", "8x8x8", 12, 21}, {"norm", "bf16 8x8", 24, 2}, {"fused", "bf16 8x32", 12, 1}}));
  ASSERT_EQ(compared.rows.size(), 4u);
  EXPECT_EQ(compared.rows[0].operation, "norm");
  EXPECT_DOUBLE_EQ(compared.rows[0].difference_ms(), -4);
  EXPECT_DOUBLE_EQ(*compared.rows[0].ratio(), 1 / 3.0);
  EXPECT_EQ(compared.rows[1].operation, "gelu");
  EXPECT_DOUBLE_EQ(compared.rows[1].difference_ms(), -3);
  EXPECT_EQ(compared.rows[1].ratio(), std::nullopt) << "it is gone";
  EXPECT_EQ(compared.rows[1].calls, 0);
  EXPECT_EQ(compared.rows[2].operation, "fc");
  EXPECT_EQ(compared.rows[3].operation, "fused");
  double difference_ms = 0;
  for (const KernelComparison::Row& row : compared.rows) difference_ms += row.difference_ms();
  const Json json = to_json(compared);
  EXPECT_DOUBLE_EQ(json.at("operations_difference_ms").get<double>(), difference_ms) << "nothing is left out";
  EXPECT_EQ(json.at("same_config"), true);
  EXPECT_EQ(json.at("operations").size(), 4u);
  const std::string text = table(compared);
  for (const char* part : {"against before.json\n", "new", "gone", "-4.000", "+1.000", "0.333", "sum of operations"}) {
    EXPECT_NE(text.find(part), std::string::npos) << "no '" << part << "' in:\n" << text;
  }
}

TEST(KernelComparison, SaysIfOthersAreCompared) {
  KernelTimes earlier = times({{"fc", "8x8x8", 12, 20}});
  earlier.device = "another GPU";
  earlier.config_hash = "4567";
  const std::string text = table(compare("f", earlier, times({{"fc", "8x8x8", 12, 20}})));
  EXPECT_NE(text.find("of another device (another GPU), of another config (hash 4567)"), std::string::npos) << text;
}

class KernelTimesFile : public testing::Test {
 protected:
  KernelTimes read(const std::string& text) {
    std::ofstream(path_, std::ios::binary) << text;
    return read_kernel_times(files_, path_);
  }
  // What a bench would print.
  static Json output() {
    return {{"format", "strake-bench-kernels-1"},
            {"device", "a GPU"},
            {"config_hash", "0123"},
            {"step_ms", {{"median", 10.0}}},
            {"operations_ms", 9.0},
            {"operations",
             {{{"operation", "fc"}, {"shape", "8x8x8"}, {"calls", 12}, {"step_ms", 5.0}},
              {{"operation", "fc"}, {"shape", "8x8x8"}, {"calls", 4}, {"step_ms", 1.0}},
              {{"operation", "norm"}, {"shape", "bf16 8x8"}, {"calls", 24}, {"step_ms", 3.0}}}}};
  }

  test::ScratchFolder folder_;
  std::filesystem::path path_ = folder_.path() / "before.json";
  PosixFiles files_;
};

TEST_F(KernelTimesFile, AddsRowsThatDifferInOtherOperands) {
  const KernelTimes read_back = read(output().dump());
  ASSERT_EQ(read_back.rows.size(), 2u);
  EXPECT_EQ(read_back.rows[0].calls, 16);
  EXPECT_DOUBLE_EQ(read_back.rows[0].step_ms, 6);
  EXPECT_EQ(read_back.device, "a GPU");
  EXPECT_DOUBLE_EQ(read_back.step_ms, 10);
}

TEST_F(KernelTimesFile, RefusesWhatItIsNot) {
  const std::string whole = output().dump();
  std::vector<std::string> bad{"", "[]", "null", "7", "{}", "\xff\xfe", R"({"format": "strake-bench-step-1"})"};
  for (std::size_t bytes = 1; bytes < whole.size(); bytes += 7) bad.push_back(whole.substr(0, bytes));
  const auto changed = [&](const char* pointer, const Json& value) {
    Json json = output();
    json[Json::json_pointer(pointer)] = value;
    bad.push_back(json.dump());
  };
  for (const Json& value : {Json("x"), Json(), Json(-1.0), Json::array()}) {
    for (const char* pointer : {"/step_ms", "/operations_ms", "/operations/0/step_ms", "/step_ms/median"}) {
      changed(pointer, value);
    }
  }
  changed("/operations/1/operation", 7);
  changed("/operations/1/calls", "many");
  changed("/operations", 7);
  for (const std::string& text : bad) {
    try {
      static_cast<void>(read(text));
      ADD_FAILURE() << "was taken: " << text;
    } catch (const ConfigError& error) {
      EXPECT_NE(std::string(error.what()).find("before.json"), std::string::npos) << error.what();
    }
  }
  files_.remove(path_);
  EXPECT_THROW(static_cast<void>(read_kernel_times(files_, path_)), ConfigError);
  EXPECT_THROW(static_cast<void>(read_kernel_times(files_, folder_.path())), ConfigError);
}

}  // namespace
}  // namespace strake::launch
