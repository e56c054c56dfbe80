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

// A start and a time a byte.
ReductionCost line(double start_ms, double ms_per_byte) {
  constexpr std::int64_t kMost = 1 << 30;
  return {{{0, start_ms}, {kMost, start_ms + ms_per_byte * static_cast<double>(kMost)}}};
}

// Where computation takes nothing from it.
ReductionCosts undisturbed(ReductionCost cost) { return {.alone = cost, .beside = cost}; }

TEST(Exposure, IsWhatGoesOnBehindBackward) {
  // Four parameters of 64 KiB, a bucket each, final at 8, 16, 24, 32 ms.
  const BucketPlan plan = plan_buckets(layout_of_kib({64, 64, 64, 64}), DType::kF32, 64 << 10);
  ASSERT_EQ(plan.buckets.size(), 4u);
  // 4 ms each: hidden but for the last.
  EXPECT_EQ(exposed_ms(plan, every(8, 4), undisturbed(line(0, kPerKib / 16))), 4);
  // 16 ms each: the link is the limit from the first on; they end at 8 + 4 * 16.
  EXPECT_EQ(exposed_ms(plan, every(8, 4), undisturbed(line(0, kPerKib / 4))), 40);
  // A start of 4 ms more for each.
  EXPECT_EQ(exposed_ms(plan, every(8, 4), undisturbed(line(4, kPerKib / 4))), 56);
  // One bucket begins when everything is final.
  EXPECT_EQ(exposed_ms(plan_buckets(layout_of_kib({64, 64, 64, 64}), DType::kF32, 4 << 20), every(8, 4),
                       undisturbed(line(4, kPerKib / 4))),
            68);
}

TEST(Exposure, BackwardThatGoesOnHidesMore) {
  BackwardTimes backward = every(8, 2);
  backward.end_ms = 18;
  const BucketPlan plan = plan_buckets(layout_of_kib({64, 64}), DType::kF32, 64 << 10);
  EXPECT_EQ(exposed_ms(plan, backward, undisturbed(line(0, kPerKib / 16))), 2);
  backward.end_ms = 64;
  EXPECT_EQ(exposed_ms(plan, backward, undisturbed(line(0, kPerKib / 16))), 0);
}

TEST(Exposure, WhatIsLeftWhenBackwardEndsGoesOnAlone) {
  // Final at 8, 16, 24, 32 ms; 16 ms each beside backward, 4 ms alone: the first ends at 24, the second is half done
  // when backward ends, so 2 ms of it are left, and two more follow.
  const BucketPlan plan = plan_buckets(layout_of_kib({64, 64, 64, 64}), DType::kF32, 64 << 10);
  const ReductionCosts costs{.alone = line(4, 0), .beside = line(16, 0)};
  EXPECT_EQ(exposed_ms(plan, every(8, 4), costs), 10);
}

TEST(Exposure, ANarrowWireCostsItsOwnBytes) {
  const ReductionCosts cost = undisturbed(line(0, kPerKib / 4));
  EXPECT_EQ(exposed_ms(plan_buckets(layout_of_kib({64}), DType::kF32, 1 << 20), every(8, 1), cost), 16);
  EXPECT_EQ(exposed_ms(plan_buckets(layout_of_kib({64}), DType::kBF16, 1 << 20), every(8, 1), cost), 8);
}

TEST(Exposure, BackwardThatReductionsHoldUpHidesMore) {
  // Final at 8, 16, 24, 32 ms of an undisturbed backward from 0, at 12, 24, 36, 48 beside reductions of 10 ms.
  BackwardTimes backward = every(8, 4);
  const BucketPlan plan = plan_buckets(layout_of_kib({64, 64, 64, 64}), DType::kF32, 64 << 10);
  EXPECT_EQ(exposed_ms(plan, backward, undisturbed(line(10, 0))), 16) << "8, 18, 28, 38 to 48, of 32";
  backward.dilation = 1.5;
  EXPECT_EQ(exposed_ms(plan, backward, undisturbed(line(10, 0))), 10) << "of the last, 48 to 58";
  // What lies before backward is not stretched.
  for (double& ms : backward.final_ms) ms += 100;
  backward.begin_ms += 100;
  backward.end_ms += 100;
  EXPECT_EQ(exposed_ms(plan, backward, undisturbed(line(10, 0))), 10);
}

TEST(ReductionCost, IsTheMeanOfEachSizeWithStraightLinesBetween) {
  const ReductionCost cost = cost_of(std::vector<TimedReduction>{{4096, 9}, {1024, 1}, {1024, 5}, {4096, 13}});
  EXPECT_EQ(cost.of(1024), 3);
  EXPECT_EQ(cost.of(4096), 11);
  EXPECT_EQ(cost.of(2560), 7);
  EXPECT_EQ(cost.of(1), 3) << "a start";
  EXPECT_EQ(cost.of(8192), 22) << "in proportion";
}

TEST(ReductionCost, OfOneSizeIsInProportionAbove) {
  const ReductionCost cost = cost_of(std::vector<TimedReduction>{{1024, 2}});
  EXPECT_EQ(cost.of(512), 2);
  EXPECT_EQ(cost.of(3072), 6);
}

TEST(ReductionCostDeathTest, NeedsMeasurements) {
  EXPECT_DEATH(ReductionCost{}.of(1), "nothing is known");
  EXPECT_DEATH(cost_of(std::vector<TimedReduction>{{1024, 0}}), "of no time");
}

TEST(LeastExposed, DearStartsAskForLargeBucketsAndCheapOnesForSmall) {
  const std::vector<std::int64_t> kib(64, 64);  // 4 MiB, final over 128 ms
  const ParamLayout layout = layout_of_kib(kib);
  const BackwardTimes backward = every(2, kib.size());
  const double per_byte = 100.0 / (4 << 20);  // 100 ms in all
  const auto bytes = [&](double start_ms) {
    return least_exposed(layout, DType::kF32, backward, undisturbed(line(start_ms, per_byte)), 0).bytes;
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
  const ReductionCosts cost = undisturbed(line(0, kPerKib / 16));
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
    const double start_ms = static_cast<double>(random() % 100) / 50;
    const ReductionCosts cost{.alone = line(start_ms, kPerKib / 20), .beside = line(2 * start_ms, kPerKib / 10)};
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
