// Every wait of a training run is needed: without it the order checker reports, with all of them it is silent.
// tsan_proof_test.cc shows the same by ThreadSanitizer; it is built there instead of this one, whose races are real.

#include <gtest/gtest.h>

#include "tests/integration/dropped_wait.h"

namespace strake::test {
namespace {

class LoadBearing : public testing::TestWithParam<WaitingRun> {};

TEST_P(LoadBearing, EveryWaitIs) {
  SmallJob job;
  expect_every_wait_is_load_bearing(job, GetParam());
}

// What a collective does between its streams and its proxy hides none of them.
TEST_P(LoadBearing, EveryWaitIsWithStagedRanks) {
  SmallJob job;
  expect_every_wait_is_load_bearing(
      job, GetParam(), [](int) { return make_cpu_device(); }, launch::CommBackend::kStaged);
}

INSTANTIATE_TEST_SUITE_P(Runs, LoadBearing, testing::ValuesIn(kWaitingRuns),
                         [](const auto& run) { return run.param.name(); });

}  // namespace
}  // namespace strake::test
