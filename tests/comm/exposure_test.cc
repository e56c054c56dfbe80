#include "comm/exposure.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>
#include <string>
#include <vector>

namespace strake::comm {
namespace {

// Parameters of so many KiB of f32, the last one final only at the end of backward where `tied`.
ParamLayout layout_of_kib(const std::vector<std::int64_t>& kib, bool tied = false) {
  std::vector<ParamSpec> specs;
  for (const std::int64_t size : kib) {
    ParamSpec spec;
    spec.name = "p" + std::to_string(specs.size());
    spec.global_shape = {size * 256};
    spec.final_at_end = tied && specs.size() + 1 == kib.size();
    specs.push_back(spec);
  }
  return ParamLayout(specs);
}

// Gradients are final one after the other, `ms` apart.
BackwardTimes every(double ms, std::size_t params) {
  BackwardTimes out;
  for (std::size_t i = 1; i <= params; ++i) out.final_ms.push_back(ms * static_cast<double>(i));
  out.end_ms = out.final_ms.back();
  return out;
}

constexpr double kPerKib = 1.0 / 1024;

// Where computation takes nothing from it.
ReductionCosts undisturbed(ReductionCost cost) { return {.alone = cost, .beside = cost}; }

TEST(Exposure, IsWhatGoesOnBehindBackward) {
  // Four parameters of 64 KiB, a bucket each, final at 8, 16, 24, 32 ms.
  const BucketPlan plan = plan_buckets(layout_of_kib({64, 64, 64, 64}), DType::kF32, 64 << 10);
  ASSERT_EQ(plan.buckets.size(), 4u);
  // 4 ms each: hidden but for the last.
  EXPECT_EQ(exposed_ms(plan, every(8, 4), undisturbed({.start_ms = 0, .ms_per_byte = kPerKib / 16})), 4);
  // 16 ms each: the link is the limit from the first on; they end at 8 + 4 * 16.
  EXPECT_EQ(exposed_ms(plan, every(8, 4), undisturbed({.start_ms = 0, .ms_per_byte = kPerKib / 4})), 40);
  // A start of 4 ms more for each.
  EXPECT_EQ(exposed_ms(plan, every(8, 4), undisturbed({.start_ms = 4, .ms_per_byte = kPerKib / 4})), 56);
  // One bucket begins when everything is final.
  EXPECT_EQ(exposed_ms(plan_buckets(layout_of_kib({64, 64, 64, 64}), DType::kF32, 4 << 20), every(8, 4),
                       undisturbed({.start_ms = 4, .ms_per_byte = kPerKib / 4})),
            68);
}

TEST(Exposure, BackwardThatGoesOnHidesMore) {
  BackwardTimes backward = every(8, 2);
  backward.end_ms = 18;
  const BucketPlan plan = plan_buckets(layout_of_kib({64, 64}), DType::kF32, 64 << 10);
  EXPECT_EQ(exposed_ms(plan, backward, undisturbed({.start_ms = 0, .ms_per_byte = kPerKib / 16})), 2);
  backward.end_ms = 64;
  EXPECT_EQ(exposed_ms(plan, backward, undisturbed({.start_ms = 0, .ms_per_byte = kPerKib / 16})), 0);
}

TEST(Exposure, WhatIsLeftWhenBackwardEndsGoesOnAlone) {
  // Final at 8, 16, 24, 32 ms; 16 ms each beside backward, 4 ms alone: the first ends at 24, the second is half done
  // when backward ends, so 2 ms of it are left, and two more follow.
  const BucketPlan plan = plan_buckets(layout_of_kib({64, 64, 64, 64}), DType::kF32, 64 << 10);
  const ReductionCosts costs{.alone = {.start_ms = 4, .ms_per_byte = 0}, .beside = {.start_ms = 16, .ms_per_byte = 0}};
  EXPECT_EQ(exposed_ms(plan, every(8, 4), costs), 10);
}

TEST(Exposure, ANarrowWireCostsItsOwnBytes) {
  const ReductionCosts cost = undisturbed({.start_ms = 0, .ms_per_byte = kPerKib / 4});
  EXPECT_EQ(exposed_ms(plan_buckets(layout_of_kib({64}), DType::kF32, 1 << 20), every(8, 1), cost), 16);
  EXPECT_EQ(exposed_ms(plan_buckets(layout_of_kib({64}), DType::kBF16, 1 << 20), every(8, 1), cost), 8);
}

TEST(Exposure, ALineIsFoundAgain) {
  const ReductionCost line{.start_ms = 0.25, .ms_per_byte = 1.0 / 65536};
  std::vector<TimedReduction> measured;
  for (const std::int64_t bytes : {512, 4096, 262144, 1048576}) measured.push_back({bytes, line.of(bytes)});
  const ReductionCost found = cost_of(measured);
  EXPECT_NEAR(found.start_ms, line.start_ms, 1e-9);
  EXPECT_NEAR(found.ms_per_byte, line.ms_per_byte, 1e-15);
}

TEST(Exposure, SmallReductionsCountAsMuchAsLargeOnes) {
  // A large one that is off by a tenth moves the start of the line by no more than a fraction of itself.
  const ReductionCost found = cost_of(std::vector<TimedReduction>{{1024, 0.25}, {2048, 0.25}, {1 << 20, 17.6}});
  EXPECT_NEAR(found.start_ms, 0.25, 0.03);
}

TEST(Exposure, WhatHadToWaitCountsAsMuchAsWhatHadNot) {
  const std::vector<TimedReduction> scattered{{1024, 1}, {1024, 5}, {1 << 20, 9}, {1 << 20, 13}};
  EXPECT_NEAR(cost_of(scattered).of(1024), 3, 1e-9);
  EXPECT_NEAR(cost_of(scattered).of(1 << 20), 11, 1e-9);
}

TEST(Exposure, NoPartOfALineIsNegative) {
  EXPECT_EQ(cost_of(std::vector<TimedReduction>{{1024, 1}, {2048, 4}}).start_ms, 0);
  const ReductionCost falling = cost_of(std::vector<TimedReduction>{{1024, 4}, {2048, 1}});
  EXPECT_EQ(falling.ms_per_byte, 0);
  EXPECT_GT(falling.start_ms, 0);
}

TEST(ExposureDeathTest, OneSizeIsNoLine) {
  EXPECT_DEATH(cost_of(std::vector<TimedReduction>{{1024, 1}, {1024, 2}}), "of one size");
}

TEST(LeastExposed, DearStartsAskForLargeBucketsAndCheapOnesForSmall) {
  const std::vector<std::int64_t> kib(64, 64);  // 4 MiB, final over 128 ms
  const ParamLayout layout = layout_of_kib(kib);
  const BackwardTimes backward = every(2, kib.size());
  const double per_byte = 100.0 / (4 << 20);  // 100 ms in all
  const auto bytes = [&](double start_ms) {
    return least_exposed(layout, DType::kF32, backward, undisturbed({.start_ms = start_ms, .ms_per_byte = per_byte}), 0)
        .bytes;
  };
  EXPECT_LT(bytes(0), 128 << 10) << "a parameter each";
  EXPECT_GT(bytes(5), bytes(0.5));
  EXPECT_GT(bytes(100), 2 << 20);
}

TEST(LeastExposed, OfEquallyGoodSizesTheLargest) {
  // A tied table is final at the end: nothing helps it, and everything else is hidden.
  std::vector<std::int64_t> kib(16, 64);
  kib.push_back(256);
  const ParamLayout layout = layout_of_kib(kib, true);
  BackwardTimes backward = every(100, kib.size());
  const ReductionCosts cost = undisturbed({.start_ms = 0, .ms_per_byte = kPerKib / 16});
  const BucketSize found = least_exposed(layout, DType::kF32, backward, cost, 0);
  EXPECT_EQ(found.exposed_ms, 16) << "of the table alone";
  EXPECT_EQ(plan_buckets(layout, DType::kF32, found.bytes).buckets.size(), 2u);
}

TEST(LeastExposed, NoOtherSizeIsPredictedBetter) {
  constexpr std::uint64_t kSeed = 7;
  SCOPED_TRACE("seed " + std::to_string(kSeed));
  std::mt19937_64 random(kSeed);
  for (int round = 0; round < 50; ++round) {
    std::vector<std::int64_t> kib(1 + random() % 40);
    for (std::int64_t& size : kib) size = static_cast<std::int64_t>(1 + random() % 200);
    const ParamLayout layout = layout_of_kib(kib, random() % 2 == 0);
    BackwardTimes backward{.final_ms = std::vector<double>(kib.size()), .end_ms = 0};
    for (double& ms : backward.final_ms) ms = backward.end_ms += static_cast<double>(random() % 1000) / 100;
    const ReductionCost alone{.start_ms = static_cast<double>(random() % 100) / 50, .ms_per_byte = kPerKib / 20};
    const ReductionCosts cost{.alone = alone, .beside = {.start_ms = 2 * alone.start_ms, .ms_per_byte = kPerKib / 10}};
    const double indifferent_ms = static_cast<double>(random() % 3) / 10;
    const BucketSize found = least_exposed(layout, DType::kF32, backward, cost, indifferent_ms);
    EXPECT_EQ(found.exposed_ms, exposed_ms(plan_buckets(layout, DType::kF32, found.bytes), backward, cost));
    for (std::int64_t bytes = 32 << 10; bytes < 64 << 20; bytes *= 2) {
      EXPECT_LE(found.exposed_ms, exposed_ms(plan_buckets(layout, DType::kF32, bytes), backward, cost) + indifferent_ms)
          << bytes;
    }
  }
}

TEST(BucketBytesByRule, ASixteenthWithinBounds) {
  EXPECT_EQ(bucket_bytes_by_rule(layout_of_kib({1}), DType::kF32), 64 << 10);
  EXPECT_EQ(bucket_bytes_by_rule(layout_of_kib({16 << 10}), DType::kF32), 1 << 20);
  EXPECT_EQ(bucket_bytes_by_rule(layout_of_kib({16 << 10}), DType::kBF16), 1 << 19);
  EXPECT_EQ(bucket_bytes_by_rule(layout_of_kib({1 << 20}), DType::kF32), 25 << 20);
}

}  // namespace
}  // namespace strake::comm
