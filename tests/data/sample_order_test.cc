#include "data/sample_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <numeric>
#include <vector>

namespace strake::data {
namespace {

std::vector<std::int64_t> epoch_of(const SampleOrder& order, std::int64_t epoch) {
  std::vector<std::int64_t> sequences(static_cast<std::size_t>(order.sequences()));
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    sequences[i] = order.sequence_of(epoch * order.sequences() + static_cast<std::int64_t>(i));
  }
  return sequences;
}

// A run that resumes with other values trains on other data. Never change these.
TEST(SampleOrder, GoldenValues) {
  const std::vector<std::int64_t> expected_10{0, 3, 7, 8, 1, 5, 6, 4, 9, 2};
  EXPECT_EQ(epoch_of(SampleOrder::shuffled(42, 10), 0), expected_10);
  const std::vector<std::int64_t> expected_10_next{5, 0, 3, 1, 2, 8, 9, 7, 6, 4};
  EXPECT_EQ(epoch_of(SampleOrder::shuffled(42, 10), 1), expected_10_next);
  const SampleOrder large = SampleOrder::shuffled(7, 1'000'003);
  const std::array<std::int64_t, 6> samples{0, 1, 999'999, 1'000'003, 123'456'789, 9'000'000'000'000};
  const std::array<std::int64_t, 6> expected_large{618577, 966430, 729875, 605697, 268773, 348148};
  for (std::size_t i = 0; i < samples.size(); ++i) EXPECT_EQ(large.sequence_of(samples[i]), expected_large[i]) << i;
  const SampleOrder huge = SampleOrder::shuffled(UINT64_MAX, INT64_MAX);
  EXPECT_EQ(huge.sequence_of(0), 4833152102971494707);
  EXPECT_EQ(huge.sequence_of(INT64_MAX), 7908160063091979969);
}

TEST(SampleOrder, EveryEpochIsAPermutation) {
  std::vector<std::int64_t> sizes(70);
  std::iota(sizes.begin(), sizes.end(), 1);
  for (const std::int64_t size : {97, 100, 127, 128, 129, 255, 256, 257, 1000, 1009, 4095, 4096, 4097, 65'537}) {
    sizes.push_back(size);
  }
  for (const std::int64_t size : sizes) {
    for (const std::uint64_t seed : {0u, 1u, 12345u}) {
      for (const std::int64_t epoch : {0, 1, 2, 1000}) {
        std::vector<std::int64_t> sequences = epoch_of(SampleOrder::shuffled(seed, size), epoch);
        std::sort(sequences.begin(), sequences.end());
        std::vector<std::int64_t> all(sequences.size());
        std::iota(all.begin(), all.end(), 0);
        ASSERT_EQ(sequences, all) << "size " << size << " seed " << seed << " epoch " << epoch;
      }
    }
  }
}

TEST(SampleOrder, SeedsAndEpochsGiveOtherOrders) {
  const auto base = epoch_of(SampleOrder::shuffled(1, 1000), 0);
  EXPECT_NE(base, epoch_of(SampleOrder::shuffled(1, 1000), 1));
  EXPECT_NE(base, epoch_of(SampleOrder::shuffled(2, 1000), 0));
  // The epoch is no shift of the seed: else neighbouring seeds would repeat each other's epochs.
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    EXPECT_NE(epoch_of(SampleOrder::shuffled(1, 1000), 1), epoch_of(SampleOrder::shuffled(seed, 1000), 0));
  }
}

TEST(SampleOrder, SmallOrdersAreEquallyLikely) {
  std::map<std::vector<std::int64_t>, int> seen;
  constexpr int kSeeds = 24'000;
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) ++seen[epoch_of(SampleOrder::shuffled(seed, 4), 0)];
  EXPECT_EQ(seen.size(), 24u);
  // Six standard deviations of a fair draw either way.
  for (const auto& [order, count] : seen) EXPECT_NEAR(count, kSeeds / 24, 190);
}

TEST(SampleOrder, SequentialCounts) {
  const SampleOrder order = SampleOrder::sequential(5);
  for (std::int64_t sample = 0; sample < 23; ++sample) EXPECT_EQ(order.sequence_of(sample), sample % 5);
}

TEST(SampleOrder, OfOneSequence) { EXPECT_EQ(SampleOrder::shuffled(3, 1).sequence_of(1234), 0); }

}  // namespace
}  // namespace strake::data
