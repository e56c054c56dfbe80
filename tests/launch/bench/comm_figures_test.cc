// What `strake bench comm` computes from times: sizes, bandwidths, the table and the JSON.
#include "launch/bench/comm_figures.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <vector>

namespace strake::launch {
namespace {

TEST(CommFigures, SizesGrowByTheFactorUpToTheLargest) {
  EXPECT_EQ(sizes_between(1024, 16384, 4), (std::vector<std::int64_t>{1024, 4096, 16384}));
  EXPECT_EQ(sizes_between(1000, 4999, 2), (std::vector<std::int64_t>{1000, 2000, 4000}));
  EXPECT_EQ(sizes_between(7, 7, 2), (std::vector<std::int64_t>{7}));
  EXPECT_EQ(sizes_between(1, std::int64_t{1} << 62, std::int64_t{1} << 40).size(), 2u);
}

TEST(CommFigures, EveryRankGetsAsMuchOfASizeThatIsCut) {
  EXPECT_EQ(elems_of(Collective::kAllReduce, 1024, DType::kF32, 3), 256);
  EXPECT_EQ(elems_of(Collective::kAllGather, 1024, DType::kF32, 3), 255);
  EXPECT_EQ(elems_of(Collective::kAllToAll, 1024, DType::kBF16, 5), 510);
  EXPECT_EQ(elems_of(Collective::kReduceScatter, 4, DType::kF64, 3), 3) << "at least one each";
  EXPECT_EQ(elems_of(Collective::kBroadcast, 1, DType::kF64, 3), 1);
  EXPECT_EQ(elems_of(Collective::kBarrier, 1024, DType::kF32, 3), 0);
}

// As nccl-tests has them.
TEST(CommFigures, BusBandwidthIsWhatALinkCarries) {
  EXPECT_DOUBLE_EQ(bus_factor(Collective::kAllReduce, 2), 1);
  EXPECT_DOUBLE_EQ(bus_factor(Collective::kAllReduce, 8), 1.75);
  EXPECT_DOUBLE_EQ(bus_factor(Collective::kReduceScatter, 4), 0.75);
  EXPECT_DOUBLE_EQ(bus_factor(Collective::kAllGather, 4), 0.75);
  EXPECT_DOUBLE_EQ(bus_factor(Collective::kAllToAll, 4), 0.75);
  EXPECT_DOUBLE_EQ(bus_factor(Collective::kBroadcast, 4), 1);
}

TEST(CommFigures, AreThoseOfTheSlowestRanksMedian) {
  const std::vector<CommMeasurement> ranks{{{10, 900, 20}, 0}, {{40, 50, 60}, 2}, {{30, 30, 30}, 1}};
  const CommFigure figure = figure_of(Collective::kAllReduce, 25'000, DType::kF32, ranks);
  EXPECT_EQ(figure.iterations, 3);
  EXPECT_EQ(figure.size_bytes, 100'000);
  EXPECT_EQ(figure.median_us, 50);
  EXPECT_EQ(figure.low_us, 40);
  EXPECT_EQ(figure.high_us, 60);
  EXPECT_DOUBLE_EQ(figure.algorithm_gb_s, 2);  // 100 KB in 50 us
  EXPECT_DOUBLE_EQ(figure.bus_gb_s, 2 * 2 * 2.0 / 3);
  EXPECT_EQ(figure.wrong_elems, 3);

  const auto json = to_json(figure);
  EXPECT_EQ(json.at("collective"), "all_reduce");
  EXPECT_EQ(json.at("time_us").at("median"), 50);
  EXPECT_EQ(json.at("wrong"), 3);
  const std::string table = table_of(std::vector{figure}, DType::kF32);
  EXPECT_NE(table.find("100000        25000    f32      3        50.00         2.00         2.67        3"),
            std::string::npos)
      << table;
}

TEST(CommFigures, WhatIsBesideIsThatOfTheRankItIsWorstOn) {
  const std::vector<CommMeasurement> ranks{
      {.times_us = {10}, .wrong_elems = 0, .beside = BesideTimes{100, {130, 150, 140}, {20}}},
      {.times_us = {12}, .wrong_elems = 0, .beside = BesideTimes{110, {120}, {30, 40, 50}}}};
  const CommFigure figure = figure_of(Collective::kAllReduce, 256, DType::kF32, ranks);
  ASSERT_TRUE(figure.beside.has_value());
  EXPECT_EQ(figure.beside->product_alone_us, 110);
  EXPECT_EQ(figure.beside->product_us, 140);
  EXPECT_EQ(figure.beside->comm_us, 40);
  const auto json = to_json(figure);
  EXPECT_EQ(json.at("beside").dump(), R"({"time_us":40.0,"product_us":140.0,"product_alone_us":110.0})");
  const std::string table = table_of(std::vector{figure}, DType::kF32);
  EXPECT_NE(table.find("beside us   product us     alone us\n"), std::string::npos) << table;
  EXPECT_TRUE(table.ends_with("40.00        140.0        110.0")) << table;
}

// A collective that is over before a product begins says nothing of what either does beside the other.
TEST(CommFigures, NothingThatLayBesideAnotherIsNoNumber) {
  const CommFigure figure =
      figure_of(Collective::kBarrier, 0, DType::kF32,
                std::vector<CommMeasurement>{{.times_us = {1}, .wrong_elems = 0, .beside = BesideTimes{5, {}, {}}}});
  EXPECT_EQ(to_json(figure).at("beside").dump(), R"({"time_us":null,"product_us":null,"product_alone_us":5.0})");
  EXPECT_TRUE(table_of(std::vector{figure}, DType::kF32).ends_with("-            -         5.00"));
  const CommFigure without =
      figure_of(Collective::kBarrier, 0, DType::kF32, std::vector<CommMeasurement>{{.times_us = {1}}});
  EXPECT_TRUE(to_json(without).at("beside").is_null());
  EXPECT_EQ(table_of(std::vector{without}, DType::kF32).find("beside"), std::string::npos);
}

TEST(CommFigures, ABarrierHasATimeAndNoBandwidth) {
  const CommFigure figure =
      figure_of(Collective::kBarrier, 0, DType::kF32, std::vector<CommMeasurement>{{{5}, 0}, {{7}, 0}});
  EXPECT_EQ(figure.median_us, 7);
  EXPECT_EQ(figure.bus_gb_s, 0);
}

}  // namespace
}  // namespace strake::launch
