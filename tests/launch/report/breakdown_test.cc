#include "launch/report/breakdown.h"

#include <gtest/gtest.h>

#include <sstream>
#include <string>

namespace strake::launch {
namespace {

TEST(StepBreakdown, TheTableFitsIntoAHundredColumnsBehindPrefixAndTime) {
  for (const double ms : {0.0, 0.0004, 9.9996, 99.996, 9999.96, 999999.0}) {
    RankStep step{.wall_ms = ms, .class_ms = {}, .comm_busy_ms = ms};
    step.class_ms.fill(ms);
    StepBreakdown breakdown(3);
    breakdown.add(std::vector<RankStep>(3, step));
    std::istringstream table(breakdown.table());
    for (std::string line; std::getline(table, line);) {
      EXPECT_LE(line.size() + std::string("strake: 12:00:00 ").size(), 100u) << line;
      if (!line.starts_with("rank")) continue;
      std::istringstream words(line);
      std::size_t columns = 0;
      for (std::string word; words >> word;) ++columns;
      EXPECT_EQ(columns, 2 + 1 + kStepClasses) << "columns have run together: " << line;
    }
  }
}

// Numbers that mean nothing are not shown.
TEST(StepBreakdown, OfOneRankTellsNothingOfCommunication) {
  RankStep step{.wall_ms = 10, .class_ms = {}, .comm_busy_ms = 0.002};
  step.class_ms[static_cast<std::size_t>(StepClass::kForward)] = 10.00001;
  StepBreakdown alone(1), two(2);
  alone.add(std::vector<RankStep>(1, step));
  two.add(std::vector<RankStep>(2, step));
  EXPECT_TRUE(alone.table().ends_with("\nunexplained +0.000 % of the time")) << alone.table();
  EXPECT_NE(two.table().find("\ncommunication 0.002 ms, 100.0 % of it hidden; unexplained +0.000 % of the time\n"),
            std::string::npos)
      << two.table();
}

TEST(StepBreakdown, NamesTheRankThatComputesLongestAndWhy) {
  RankStep quick{.wall_ms = 10, .class_ms = {}};
  quick.class_ms[static_cast<std::size_t>(StepClass::kForward)] = 4;
  quick.class_ms[static_cast<std::size_t>(StepClass::kExposedComm)] = 6;
  RankStep late = quick;
  late.class_ms[static_cast<std::size_t>(StepClass::kDataWait)] = 6;
  late.class_ms[static_cast<std::size_t>(StepClass::kExposedComm)] = 0;
  StepBreakdown breakdown(2);
  breakdown.add(std::vector<RankStep>{quick, late});
  EXPECT_EQ(breakdown.slowest().rank, 1);
  EXPECT_DOUBLE_EQ(breakdown.slowest().factor, 10.0 / 7);
  EXPECT_EQ(breakdown.slowest().step_class, StepClass::kDataWait);
  EXPECT_DOUBLE_EQ(breakdown.mean().of(StepClass::kExposedComm), 3);
}

}  // namespace
}  // namespace strake::launch
