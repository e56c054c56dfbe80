#include "runtime/telemetry/spread.h"

#include <gtest/gtest.h>

#include <vector>

namespace strake {
namespace {

TEST(Spread, OfElevenValuesInAnyOrder) {
  const Spread spread = spread_of({80, 10, 90, 0, 40, 30, 100, 20, 60, 50, 70});
  EXPECT_EQ(spread.median, 50);
  EXPECT_EQ(spread.low, 0);
  EXPECT_EQ(spread.high, 100);
  EXPECT_EQ(spread.p10, 10);
  EXPECT_EQ(spread.p90, 90);
  EXPECT_EQ(spread.mean, 50);
  EXPECT_EQ(spread.samples, 11u);
}

TEST(Spread, LiesBetweenNeighbours) {
  const Spread spread = spread_of({4, 1, 3, 2, 100, 5});  // places 0 .. 5: the middle is at 2.5
  EXPECT_EQ(spread.median, 3.5);
  EXPECT_EQ(spread.p10, 1.5);
  EXPECT_EQ(spread.p90, 52.5);
  EXPECT_EQ(median_of({4, 1, 3, 2}), 2.5);
}

TEST(Spread, OfOneValueIsThatValue) {
  const Spread spread = spread_of({7});
  for (const double value : {spread.median, spread.low, spread.high, spread.p10, spread.p90, spread.mean}) {
    EXPECT_EQ(value, 7);
  }
}

TEST(SpreadDeathTest, OfNothingIsAnError) { EXPECT_DEATH(spread_of({}), "nothing was measured"); }

}  // namespace
}  // namespace strake
