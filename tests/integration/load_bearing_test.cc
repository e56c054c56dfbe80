// Every wait of a training run is needed: without it the order checker reports, with all of them it is silent.
// tsan_proof_test.cc shows the same by ThreadSanitizer; it is built there instead of this one, whose races are real.

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/integration/dropped_wait.h"

namespace strake::test {
namespace {

TEST(LoadBearing, EveryWaitIs) {
  SmallJob job;
  const DroppedWait clean = run_with_dropped_wait(job, "", 0);
  for (const OrderChecker::Report& report : clean.reports) ADD_FAILURE() << report.describe();
  EXPECT_EQ(clean.waits_dropped, 0);

  std::vector<std::string> sites;
  for (const auto& [site, passes] : clean.waits_passed) sites.push_back(site);
  EXPECT_EQ(sites, std::vector<std::string>(std::begin(kWaitSites), std::end(kWaitSites)));

  for (const auto& [site, passes] : clean.waits_passed) {
    const DroppedWait dropped = run_with_dropped_wait(job, site, passes / 2);
    EXPECT_GT(dropped.waits_dropped, 0) << site;
    EXPECT_FALSE(dropped.reports.empty()) << "'" << site << "' is not needed, or an access behind it is not declared";
    if (site != "copy-in waits for the slot's last reader") continue;
    // Two loaders wait there.
    for (const char* operation : {"train batch h2d", "val batch h2d"}) {
      const bool found = std::any_of(dropped.reports.begin(), dropped.reports.end(),
                                     [&](const auto& report) { return report.operation == operation; });
      EXPECT_TRUE(found) << operation;
    }
  }
}

}  // namespace
}  // namespace strake::test
