#include "launch/train/replicas.h"

#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

#include "runtime/base/error.h"
#include "tests/support/rank_threads.h"

namespace strake::launch {
namespace {

// What each of the ranks throws, which hold these fingerprints of weights and moments.
std::vector<std::string> compare(const std::vector<std::array<std::uint64_t, 2>>& held) {
  const int ranks = static_cast<int>(held.size());
  comm::ThreadsWorld world(ranks);
  std::vector<std::string> said(held.size());
  test::run_ranks(world, [&](int rank) {
    const auto control = world.make_control(rank);
    const auto& mine = held[static_cast<std::size_t>(rank)];
    const ReplicaPart parts[] = {{"weights", mine[0]}, {"moments", mine[1]}};
    try {
      require_equal_replicas(*control, 12, parts);
    } catch (const DivergenceError& error) {
      EXPECT_EQ(error.exit_code(), ExitCode::kFailure);
      said[static_cast<std::size_t>(rank)] = error.what();
    }
  });
  return said;
}

TEST(Replicas, EqualOnesPass) {
  EXPECT_EQ(compare({{7, 0}}), std::vector<std::string>(1));
  EXPECT_EQ(compare({{7, 0}, {7, 0}, {7, 0}}), std::vector<std::string>(3));
  EXPECT_EQ(compare({{~0ull, 1}, {~0ull, 1}}), std::vector<std::string>(2));
}

TEST(Replicas, DifferencesAreNamedByPartAndRankOnEveryRank) {
  const std::vector<std::string> said = compare({{7, 1}, {7, 2}, {8, 1}, {7, 3}});
  for (const std::string& each : said) EXPECT_EQ(each, said[0]);
  for (const char* part : {"step 12", "weights on rank 2; moments on ranks 1, 3", "No checkpoint was written"})
    EXPECT_NE(said[0].find(part), std::string::npos) << said[0];
}

// Parts are compared one by one: what one lacks does not make up for what the other has.
TEST(Replicas, EveryDigitCounts) {
  for (int bit = 0; bit < 64; ++bit) {
    const std::uint64_t flipped = std::uint64_t{1} << bit;
    EXPECT_NE(compare({{0, flipped}, {flipped, 0}})[1].find("weights on rank 1; moments on rank 1"), std::string::npos);
  }
}

}  // namespace
}  // namespace strake::launch
