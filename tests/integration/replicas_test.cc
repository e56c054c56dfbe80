// Ranks whose models are no longer one write no checkpoint of them.
#include <gtest/gtest.h>

#include "tests/integration/diverged_rank.h"

namespace strake::test {
namespace {

TEST(Replicas, AFlippedBitOnOneRankIsFoundBeforeTheNextCheckpoint) {
  SmallJob job;
  expect_a_flipped_bit_ends_the_run([&] { return job.config(2, 1, 2, 8); }, [](int) { return make_cpu_device(); });
}

}  // namespace
}  // namespace strake::test
