// Within a cell (ranks, micro-batch, accumulation) results are equal bit for bit, whatever overlaps, however gradients
// are cut into buckets, whoever is late. Between cells that see the same samples they differ by rounding only.
// docs/determinism.md states what is promised.

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <optional>

#include "tests/integration/small_job.h"
#include "tests/integration/variants.h"

namespace strake::test {
namespace {

constexpr std::int64_t kSteps = 6;

// Under sanitizers a run takes ten times as long: a few of `all` show them all of the code.
std::vector<Variant> some_of(std::vector<Variant> all) {
#ifdef STRAKE_SANITIZED
  std::vector<Variant> some;
  for (std::size_t i = 0; i < all.size(); i += 3) some.push_back(all[i]);
  return some;
#else
  return all;
#endif
}

class EqualBits : public testing::TestWithParam<std::pair<int, int>> {};

TEST_P(EqualBits, WithinACell) {
  const auto [ranks, accumulation] = GetParam();
  SCOPED_TRACE(testing::Message() << "seed of delays " << kDelaySeed);
  SmallJob job;
  std::optional<JobOutcome> expected;
  for (const Variant& variant : variants()) {
    SCOPED_TRACE(variant.name);
    const JobOutcome run = run_variant(job.config(ranks, accumulation, 2, kSteps), ranks, variant);
    if (variant.bucket_mib == kOneBucket) {
      EXPECT_EQ(run.buckets, 2u);
    } else {
      EXPECT_GE(run.buckets, variant.bucket_mib == kSomeBuckets ? 6u : 20u);
    }
    if (!expected.has_value()) expected = run;
    expect_equal_bits(run, *expected, kSteps);
  }
}

#ifdef STRAKE_SANITIZED
constexpr std::pair<int, int> kCells[] = {{1, 2}, {2, 2}, {3, 1}};
#else
constexpr std::pair<int, int> kCells[] = {{1, 1}, {1, 2}, {1, 4}, {2, 1}, {2, 2}, {2, 4},
                                          {3, 1}, {3, 2}, {3, 4}, {4, 1}, {4, 2}, {4, 4}};
#endif
INSTANTIATE_TEST_SUITE_P(Cells, EqualBits, testing::ValuesIn(kCells), [](const auto& cell) {
  return "Ranks" + std::to_string(cell.param.first) + "Accumulation" + std::to_string(cell.param.second);
});

class EqualBitsOfShards : public testing::TestWithParam<std::pair<int, int>> {};

TEST_P(EqualBitsOfShards, AsReplicated) {
  const auto [ranks, accumulation] = GetParam();
  SCOPED_TRACE(testing::Message() << "seed of delays " << kDelaySeed);
  SmallJob job;
  const JobOutcome expected =
      run_variant(job.config(ranks, accumulation, 1, kSteps), ranks, {"replicated", false, kOneBucket});
  for (const Variant& variant : sharded_variants()) {
    SCOPED_TRACE(variant.name);
    expect_equal_bits(run_variant(job.config(ranks, accumulation, 1, kSteps), ranks, variant), expected, kSteps);
  }
}

#ifdef STRAKE_SANITIZED
constexpr std::pair<int, int> kShardedCells[] = {{2, 2}, {5, 1}};
#else
constexpr std::pair<int, int> kShardedCells[] = {{1, 1}, {2, 2}, {3, 1}, {4, 2}, {5, 1}, {7, 1}, {8, 2}};
#endif
INSTANTIATE_TEST_SUITE_P(Cells, EqualBitsOfShards, testing::ValuesIn(kShardedCells), [](const auto& cell) {
  return "Ranks" + std::to_string(cell.param.first) + "Accumulation" + std::to_string(cell.param.second);
});

// A tied token table whose gradient is reduced in two parts: other sums than of the whole, and within them every bit.
class EqualBitsOfASplitTable : public testing::TestWithParam<std::pair<int, int>> {};

launch::Config with_table(launch::Config config, launch::SplitTable split) {
  config.comm.split_embedding = split;
  return config;
}

std::vector<Variant> all_variants() {
  std::vector<Variant> all = variants();
  const std::vector<Variant> sharded = sharded_variants();
  all.insert(all.end(), sharded.begin(), sharded.end());
  return all;
}

TEST_P(EqualBitsOfASplitTable, WithinACell) {
  const auto [ranks, accumulation] = GetParam();
  SCOPED_TRACE(testing::Message() << "seed of delays " << kDelaySeed);
  SmallJob job;
  const auto config = [&](launch::SplitTable split) {
    return with_table(job.config(ranks, accumulation, 1, kSteps), split);
  };
  const Variant variant{"of the whole table", true, kSomeBuckets};
  const JobOutcome whole = run_variant(config(launch::SplitTable::kNever), ranks, variant);
  std::optional<JobOutcome> expected;
  for (const Variant& each : all_variants()) {
    SCOPED_TRACE(each.name);
    const JobOutcome run = run_variant(config(launch::SplitTable::kAlways), ranks, each);
    if (!expected.has_value()) expected = run;
    expect_equal_bits(run, *expected, kSteps);
  }
  ASSERT_EQ(expected->losses().size(), whole.losses().size());
  for (std::size_t step = 0; step < whole.losses().size(); ++step) {
    if (ranks == 1) {
      EXPECT_EQ(expected->losses()[step], whole.losses()[step]) << "one rank splits nothing";
    } else {
      EXPECT_NEAR(expected->losses()[step], whole.losses()[step], 2e-6 * whole.losses()[step]) << "step " << step + 1;
    }
  }
}

#ifdef STRAKE_SANITIZED
constexpr std::pair<int, int> kSplitCells[] = {{2, 2}, {3, 1}};
#else
constexpr std::pair<int, int> kSplitCells[] = {{1, 2}, {2, 1}, {2, 2}, {3, 2}, {4, 1}, {5, 1}, {7, 1}, {8, 2}};
#endif
INSTANTIATE_TEST_SUITE_P(Cells, EqualBitsOfASplitTable, testing::ValuesIn(kSplitCells), [](const auto& cell) {
  return "Ranks" + std::to_string(cell.param.first) + "Accumulation" + std::to_string(cell.param.second);
});

// Where no table of positions ends backward, gradients travel in bf16, and through staging memory.
TEST(EqualBitsBetweenRuns, OfASplitTableOnANarrowWireAndStaged) {
  SmallJob job;
  for (const launch::CommBackend backend : {launch::CommBackend::kAuto, launch::CommBackend::kStaged}) {
    std::optional<JobOutcome> expected;
    for (const Variant& variant : some_of(all_variants())) {
      SCOPED_TRACE(variant.name);
      launch::Config config = with_table(job.config(2, 2, 2, kSteps), launch::SplitTable::kAlways);
      config.model.kind = "llama";
      config.model.tied_head = true;
      config.comm.wire_dtype = launch::ComputeType::kBF16;
      config.comm.backend = backend;
      const JobOutcome run = run_variant(config, 2, variant);
      if (!expected.has_value()) expected = run;
      expect_equal_bits(run, *expected, kSteps);
    }
  }
}

TEST(EqualBitsBetweenRuns, ACutRunOfASplitTableEndsAsTheUncut) {
  SmallJob job;
  const Variant variant{"as it was", true, kSomeBuckets}, serial{"serial, one bucket", false, kOneBucket};
  Variant sharded = variant;
  sharded.shard = models::Shard::kOptimizer;
  const auto config = [&] { return with_table(job.config(3, 2, 1, kSteps), launch::SplitTable::kAlways); };
  const JobOutcome uncut = run_variant(config(), 3, variant);
  const MakeDevice make_device = [](int) { return make_cpu_device(); };
  expect_resumes_as(uncut, config(), 3, 2, variant, serial, make_device);
  expect_resumes_as(uncut, config(), 3, 3, sharded, variant, make_device);
  expect_resumes_as(uncut, config(), 3, 4, variant, sharded, make_device);
}

TEST(EqualBitsBetweenRuns, ARunRepeatsItself) {
  SmallJob job;
  const Variant variant{"repeated", true, kSomeBuckets};
  const JobOutcome first = run_variant(job.config(2, 2, 2, kSteps), 2, variant);
  const JobOutcome again = run_variant(job.config(2, 2, 2, kSteps), 2, variant);
  expect_equal_bits(again, first, kSteps);
}

// Grouped heads, rotary positions, a gated MLP, a head of its own; and whatever backward computes again.
TEST(EqualBitsBetweenRuns, OfALlamaWithEveryRecomputation) {
  SmallJob job;
  std::optional<JobOutcome> expected;
  for (const models::Recompute recompute :
       {models::Recompute::kNone, models::Recompute::kNormActivation, models::Recompute::kBlock}) {
    for (const Variant& variant : some_of(variants())) {
      SCOPED_TRACE(testing::Message() << variant.name << ", policy " << static_cast<int>(recompute));
      launch::Config config = job.config(2, 2, 2, kSteps);
      config.model.kind = "llama";
      config.model.kv_heads = 1;
      config.train.recompute = recompute;
      const JobOutcome run = run_variant(config, 2, variant);
      if (!expected.has_value()) expected = run;
      expect_equal_bits(run, *expected, kSteps);
    }
  }
}

// Through staging memory and a proxy thread, in whatever chunks: the sums of the host communicator.
TEST_P(EqualBits, StagedAsDirect) {
  const auto [ranks, accumulation] = GetParam();
  SmallJob job;
  const auto config = [&](launch::CommBackend backend) {
    launch::Config made = job.config(ranks, accumulation, 2, kSteps);
    made.comm.backend = backend;
    return made;
  };
  const JobOutcome direct = run_variant(config(launch::CommBackend::kAuto), ranks, {"direct", true, kSomeBuckets});
  for (const Variant& variant :
       {Variant{"serial, one bucket", false, kOneBucket}, Variant{"overlapped, some buckets", true, kSomeBuckets},
        Variant{"all late", true, kOneBucketEach, "all"}}) {
    SCOPED_TRACE(variant.name);
    expect_equal_bits(run_variant(config(launch::CommBackend::kStaged), ranks, variant), direct, kSteps);
  }
}

// Gradients of two micro-batches add up in f32 and travel in bf16.
TEST(EqualBitsBetweenRuns, OnAWireOfAnotherType) {
  SmallJob job;
  const auto config = [&](launch::ComputeType wire) {
    launch::Config made = job.config(2, 2, 2, kSteps);
    made.comm.wire_dtype = wire;
    return made;
  };
  const JobOutcome wide = run_variant(config(launch::ComputeType::kAuto), 2, {"f32", true, kSomeBuckets});
  std::optional<JobOutcome> expected;
  for (const Variant& variant : some_of(variants())) {
    SCOPED_TRACE(variant.name);
    const JobOutcome run = run_variant(config(launch::ComputeType::kBF16), 2, variant);
    if (!expected.has_value()) expected = run;
    expect_equal_bits(run, *expected, kSteps);
  }
  for (const Variant& variant : some_of(sharded_variants())) {
    SCOPED_TRACE(variant.name);
    expect_equal_bits(run_variant(config(launch::ComputeType::kBF16), 2, variant), *expected, kSteps);
  }
  EXPECT_EQ(expected->losses().front(), wide.losses().front());
  EXPECT_NE(expected->ranks[0].steps[0].grad_norm, wide.ranks[0].steps[0].grad_norm);
  for (std::size_t step = 0; step < wide.losses().size(); ++step) {
    EXPECT_NEAR(expected->losses()[step], wide.losses()[step], 0.02) << "step " << step + 1;
  }
}

// As processes: resume_test.cc.
TEST(EqualBitsBetweenRuns, ACutRunEndsAsTheUncut) {
  SmallJob job;
  const Variant variant{"as it was", true, kSomeBuckets}, other{"serial, one bucket", false, kOneBucket};
  const JobOutcome uncut = run_variant(job.config(2, 2, 2, kSteps), 2, variant);
  const MakeDevice make_device = [](int) { return make_cpu_device(); };
  expect_resumes_as(uncut, job.config(2, 2, 2, kSteps), 2, 2, variant, variant, make_device);
  expect_resumes_as(uncut, job.config(2, 2, 2, kSteps), 2, 5, variant, other, make_device);
}

// A checkpoint says nothing of who kept what.
TEST(EqualBitsBetweenRuns, ACutRunEndsAsTheUncutHoweverItIsSharded) {
  SmallJob job;
  const Variant replicated{"replicated", true, kSomeBuckets};
  Variant sharded = replicated, other{"sharded, a bucket a parameter", true, kOneBucketEach};
  sharded.shard = other.shard = models::Shard::kOptimizer;
  const JobOutcome uncut = run_variant(job.config(3, 1, 2, kSteps), 3, replicated);
  const MakeDevice make_device = [](int) { return make_cpu_device(); };
  expect_resumes_as(uncut, job.config(3, 1, 2, kSteps), 3, 2, sharded, other, make_device);
  expect_resumes_as(uncut, job.config(3, 1, 2, kSteps), 3, 4, sharded, replicated, make_device);
  expect_resumes_as(uncut, job.config(3, 1, 2, kSteps), 3, 4, replicated, sharded, make_device);
}

TEST(EqualBitsBetweenRuns, AnotherSeedIsAnotherRun) {
  SmallJob job;
  const Variant variant{"seeded", true, kSomeBuckets};
  launch::Config config = job.config(2, 1, 2, kSteps);
  const JobOutcome first = run_variant(config, 2, variant);
  config = job.config(2, 1, 2, kSteps);
  config.run.seed += 1;
  EXPECT_NE(run_variant(config, 2, variant).losses(), first.losses());
}

// The same samples in every step, summed in other orders.
TEST(BetweenCells, LossesDifferByRoundingOnly) {
#ifdef STRAKE_SANITIZED
  GTEST_SKIP() << "a question of numbers, not of threads or memory";
#endif
  SmallJob job;
  std::map<std::string, std::vector<double>> losses;
  for (const auto& [ranks, accumulation] : {std::pair(1, 1), std::pair(1, 4), std::pair(2, 1), std::pair(2, 2),
                                            std::pair(3, 1), std::pair(3, 4), std::pair(4, 1)}) {
    const std::int64_t micro_batch = 48 / (ranks * accumulation);
    const JobOutcome run =
        run_variant(job.config(ranks, accumulation, micro_batch, kSteps), ranks, {"between cells", true, kSomeBuckets});
    losses[std::to_string(ranks) + " ranks, accumulation " + std::to_string(accumulation)] = run.losses();
  }
  const std::vector<double>& expected = losses.begin()->second;
  double largest = 0;
  for (const auto& [cell, values] : losses) {
    ASSERT_EQ(values.size(), expected.size());
    for (std::size_t step = 0; step < values.size(); ++step) {
      const double difference = std::abs(values[step] - expected[step]) / expected[step];
      largest = std::max(largest, difference);
      EXPECT_LT(difference, 2e-6) << cell << ", step " << step + 1;
    }
  }
  EXPECT_LT(expected.back(), expected.front() - 0.3);  // of a training that moves
  RecordProperty("largest_relative_difference", std::to_string(largest));
  std::printf("largest relative difference of a loss between cells: %.2g\n", largest);
}

}  // namespace
}  // namespace strake::test
