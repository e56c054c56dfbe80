#include "launch/report/breakdown.h"

#include <gtest/gtest.h>

#include <chrono>
#include <sstream>
#include <string>
#include <vector>

#include "launch/report/comm_timeline.h"

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

TEST(StepBreakdown, TellsWhatIsExposedByStructure) {
  RankStep step{.wall_ms = 10, .class_ms = {}, .comm_busy_ms = 8, .exposed_at_end_ms = 1.5};
  step.class_ms[static_cast<std::size_t>(StepClass::kExposedComm)] = 4;
  RankStep other = step;
  other.exposed_at_end_ms = 0.5;
  std::vector<double> values;
  other.append_to(values);
  ASSERT_EQ(values.size(), RankStep::kValues);
  StepBreakdown two(2), one(1), odd(2);
  two.add(std::vector<RankStep>{step, RankStep::from(values)});
  EXPECT_NE(two.table().find("\nexposed 4.000 ms: 1.000 by structure (final when backward ends), 3.000 else\n"),
            std::string::npos)
      << two.table();
  one.add(std::vector<RankStep>{step});
  EXPECT_EQ(one.table().find("by structure"), std::string::npos) << "one rank waits for nobody: " << one.table();
  step.exposed_at_end_ms = 4.1;  // of another clock
  odd.add(std::vector<RankStep>{step, step});
  EXPECT_NE(odd.table().find("4.000 by structure (final when backward ends), 0.000 else"), std::string::npos)
      << odd.table();
}

// Of a step whose backward ends at 10 ms. Reductions go on one behind the other, so each is exposed from the end of
// backward or of the one before.
TEST(RankStepOfAReport, CountsBehindBackwardOnly) {
  using std::chrono::milliseconds;
  StepReport report;
  report.backward = {.begin = milliseconds(5), .end = milliseconds(10)};
  report.comm_busy = milliseconds(12);
  const auto bucket = [&](int ready, int begin, int end, bool at_end) {
    report.buckets.push_back({milliseconds(ready), milliseconds(begin), milliseconds(end), at_end});
  };
  bucket(6, 6, 8, false);
  bucket(8, 8, 12, false);
  bucket(10, 12, 15, true);
  bucket(10, 15, 16, true);
  EXPECT_EQ(StepTimeline::of(report).exposed_ms(), (std::vector<double>{0, 2, 3, 1}));
  EXPECT_EQ(rank_step(report).exposed_at_end_ms, 4);
  EXPECT_EQ(rank_step(report).comm_busy_ms, 12);
  // What waits longer than the link needs is exposed, too: by what came before, and then by itself.
  report.buckets[2].end = milliseconds(18), report.buckets[3].begin = milliseconds(18);
  report.buckets[3].end = milliseconds(19);
  EXPECT_EQ(rank_step(report).exposed_at_end_ms, 7);
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
