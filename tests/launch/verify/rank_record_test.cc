#include "launch/verify/rank_record.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace strake::launch {
namespace {

RankRecord record() {
  return {.steps = {{1.5, 0.25}, {1.25, 0.5}},
          .state = {{"param/a", true, 10}, {"adam_m/a", true, 20}, {"read/a", true, 30}},
          .buckets = 3,
          .operations_checked = 7,
          .reports = 1,
          .first_reports = {"RAW: 'a' is not ordered after 'b'"},
          .stop_signal = 0};
}

std::vector<RankRecord> two() { return {record(), record()}; }

TEST(RankRecord, TravelsAsTextWithEveryBit) {
  RankRecord sent = record();
  sent.steps[0] = {std::numeric_limits<double>::quiet_NaN(), -0.0};
  sent.steps[1] = {0.1, std::nextafter(0.1, 1)};
  sent.state[0].value = ~std::uint64_t{0};
  sent.state[1].whole = false;
  const RankRecord got = RankRecord::from_text(sent.to_text());
  EXPECT_EQ(first_difference(std::vector{got}, std::vector{sent}), std::nullopt);
  EXPECT_TRUE(std::isnan(got.steps[0].loss));
  EXPECT_TRUE(std::signbit(got.steps[0].grad_norm));
  EXPECT_FALSE(got.state[1].whole);
  EXPECT_EQ(got.buckets, sent.buckets);
  EXPECT_EQ(got.operations_checked, sent.operations_checked);
  EXPECT_EQ(got.reports, sent.reports);
  EXPECT_EQ(got.first_reports, sent.first_reports);
}

TEST(FirstDifference, IsNoneOfEqualRecords) { EXPECT_EQ(first_difference(two(), two()), std::nullopt); }

TEST(FirstDifference, IsTheEarliestStepThenTheLowestRank) {
  std::vector<RankRecord> ranks = two();
  ranks[0].steps[1].loss = std::nextafter(1.25, 2);
  ranks[1].steps[0].grad_norm = std::nextafter(0.25, 1);
  ranks[0].state[0].value = 11;
  auto found = first_difference(ranks, two());
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->step, 1);
  EXPECT_EQ(found->what, "gradient norm");
  EXPECT_EQ(found->rank, 1);
  EXPECT_NE(found->value, found->expected) << "the digits tell one bit";

  ranks[1].steps[0].grad_norm = 0.25;
  found = first_difference(ranks, two());
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->step, 2);
  EXPECT_EQ(found->what, "loss");
  EXPECT_EQ(found->rank, 0);
}

TEST(FirstDifference, IsAParameterBehindTheLastStepWhereEveryLossIsEqual) {
  std::vector<RankRecord> ranks = two();
  ranks[1].state[2].value = 31;
  const auto found = first_difference(ranks, two());
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->step, 2);
  EXPECT_EQ(found->what, "read/a");
  EXPECT_EQ(found->rank, 1);
  EXPECT_NE(found->describe().find("step 2, read/a, rank 1"), std::string::npos) << found->describe();
}

// Fingerprints of parts add up to that of the whole (state_fingerprints.h).
TEST(FirstDifference, PutsTogetherWhatRanksKeepPartsOf) {
  std::vector<RankRecord> sharded = two();
  sharded[0].state = {{"param/a", false, 4}, {"adam_m/a", false, 20}, {"read/a", true, 30}};
  sharded[1].state = {{"param/a", false, 6}, {"read/a", true, 30}};  // no part of the moments is its own
  EXPECT_EQ(first_difference(sharded, two()), std::nullopt);
  EXPECT_EQ(first_difference(two(), sharded), std::nullopt);
  sharded[1].state[0].value = 7;
  const auto found = first_difference(sharded, two());
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->what, "param/a");
}

TEST(FirstDifference, IsATensorThatIsMissing) {
  std::vector<RankRecord> ranks = two();
  ranks[0].state.pop_back();
  const auto found = first_difference(ranks, two());
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->value, "missing");
  EXPECT_EQ(first_difference(two(), ranks)->expected, "missing");
}

}  // namespace
}  // namespace strake::launch
