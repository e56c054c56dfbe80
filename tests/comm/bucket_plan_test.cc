#include "comm/bucket_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

namespace strake::comm {
namespace {

// The gradients of the last `final_at_end` are final only when backward ends.
ParamLayout layout_of(const std::vector<std::int64_t>& elems, std::size_t final_at_end = 0) {
  std::vector<ParamSpec> specs;
  for (const std::int64_t n : elems) {
    ParamSpec spec;
    spec.name = "p" + std::to_string(specs.size());
    spec.global_shape = {n};
    spec.final_at_end = specs.size() + final_at_end >= elems.size();
    specs.push_back(spec);
  }
  return ParamLayout(specs);
}

// Which parameters each bucket holds.
std::vector<std::vector<std::size_t>> params_of(const BucketPlan& plan) {
  std::vector<std::vector<std::size_t>> out;
  for (const Bucket& bucket : plan.buckets) {
    out.emplace_back();
    for (std::size_t i = index_of(bucket.first); i <= index_of(bucket.last); ++i) out.back().push_back(i);
  }
  return out;
}

using Params = std::vector<std::vector<std::size_t>>;

TEST(BucketPlan, FirstBucketIsAQuarter) {
  // 1024 bytes each; the cap is eight of them, the first bucket's two.
  const BucketPlan plan = plan_buckets(layout_of(std::vector<std::int64_t>(13, 1024)), DType::kF32, 8 * 4096);
  EXPECT_EQ(params_of(plan), (Params{{0, 1}, {2, 3, 4, 5, 6, 7, 8, 9}, {10, 11, 12}}));
}

TEST(BucketPlan, GapsBelongToTheParameterBefore) {
  // 100 and 600 elements take 512 and 1024 in the arena.
  const ParamLayout layout = layout_of({100, 600, 1});
  const BucketPlan plan = plan_buckets(layout, DType::kF32, 4);
  ASSERT_EQ(plan.buckets.size(), 3u);
  EXPECT_EQ(plan.buckets[0].begin_elems, 0);
  EXPECT_EQ(plan.buckets[0].end_elems, 512);
  EXPECT_EQ(plan.buckets[1].end_elems, 1536);
  EXPECT_EQ(plan.buckets[2].end_elems, 2048);
  EXPECT_EQ(plan.buckets[2].end_elems, layout.total_elems());
}

TEST(BucketPlan, ALargeParameterIsABucketOfItsOwn) {
  const BucketPlan plan = plan_buckets(layout_of({512, 512, 5120, 512, 512}), DType::kF32, 3 * 2048);
  EXPECT_EQ(params_of(plan), (Params{{0}, {1}, {2}, {3, 4}}));
}

TEST(BucketPlan, WhatIsFinalOnlyAtTheEndSharesNoBucket) {
  const auto plan = [](std::size_t final_at_end, std::int64_t bytes) {
    return params_of(plan_buckets(layout_of(std::vector<std::int64_t>(6, 512), final_at_end), DType::kF32, bytes));
  };
  EXPECT_EQ(plan(2, 1 << 20), (Params{{0, 1, 2, 3}, {4, 5}}));
  // It is cut like the rest where it is larger than a bucket.
  EXPECT_EQ(plan(3, 4096), (Params{{0}, {1, 2}, {3, 4}, {5}}));
  EXPECT_EQ(plan(6, 1 << 20), (Params{{0, 1, 2, 3, 4, 5}}));
}

TEST(BucketPlan, SaysWhatIsFinalOnlyAtTheEnd) {
  const std::vector<std::int64_t> elems(6, 512);
  const BucketPlan plan = plan_buckets(layout_of(elems, 3), DType::kF32, 4096);  // 0 | 1 2 | 3 4 | 5
  std::vector<bool> said;
  for (const Bucket& bucket : plan.buckets) said.push_back(bucket.final_at_end);
  EXPECT_EQ(said, (std::vector<bool>{false, false, true, true}));
  EXPECT_EQ(plan.bytes(), 6 * 2048);
  EXPECT_EQ(plan.bytes_at_end(), 3 * 2048);
  EXPECT_EQ(plan.describe_at_end(), "buckets 2, 3, 0.006 of 0.012 MiB");
  EXPECT_NE(plan.describe().find("bucket   2: parameters 3..4, elements 1536..2560, 0.004 MiB f32, final when"),
            std::string::npos)
      << plan.describe();
  EXPECT_NE(plan.describe().find("0.004 MiB f32\n"), std::string::npos) << "not of bucket 1: " << plan.describe();
  EXPECT_EQ(plan_buckets(layout_of(elems), DType::kF32, 4096).describe_at_end(), "");
  EXPECT_EQ(plan_buckets(layout_of(elems, 1), DType::kBF16, 1 << 20).describe_at_end(), "bucket 1, 0.001 of 0.006 MiB");

  ParamLayout padded = layout_of(elems, 3);  // the same of equal pieces
  const BucketPlan pieces = plan_pieces(padded, DType::kF32, 4096, 3);
  ASSERT_EQ(pieces.buckets.size(), 4u);
  EXPECT_EQ(pieces.buckets[1].final_at_end, false);
  EXPECT_EQ(pieces.buckets[2].final_at_end, true);
  EXPECT_EQ(pieces.bytes_at_end(), (1536 + 1536) * 4);
}

TEST(BucketPlan, NoBucketCrossesIntoAnotherGroupOfRanks) {
  ParamLayout layout;
  for (int i = 0; i < 6; ++i) {
    ParamSpec spec{.name = "p" + std::to_string(i), .global_shape = {512}};
    if (i == 2 || i == 3) spec.summed_over = {MeshAxis::kData};
    layout.add(spec);
  }
  EXPECT_EQ(params_of(plan_buckets(layout, DType::kF32, 1 << 20)), (Params{{0, 1}, {2, 3}, {4, 5}}));
}

TEST(BucketPlan, SizesAreOfTheWireType) {
  const ParamLayout layout = layout_of(std::vector<std::int64_t>(9, 512));
  EXPECT_EQ(params_of(plan_buckets(layout, DType::kBF16, 4096)), (Params{{0}, {1, 2, 3, 4}, {5, 6, 7, 8}}));
  EXPECT_EQ(params_of(plan_buckets(layout, DType::kF64, 16384)), (Params{{0}, {1, 2, 3, 4}, {5, 6, 7, 8}}));
}

TEST(BucketPlan, FractionsOfAMebibyte) {
  // comm.bucket_mib = 0.012 is 12582 bytes: six parameters of 2 KiB, not seven.
  const auto bytes = static_cast<std::int64_t>(0.012 * (1 << 20));
  const BucketPlan plan = plan_buckets(layout_of(std::vector<std::int64_t>(13, 512)), DType::kF32, bytes);
  EXPECT_EQ(params_of(plan), (Params{{0}, {1, 2, 3, 4, 5, 6}, {7, 8, 9, 10, 11, 12}}));
  // Less than an element: every parameter by itself.
  EXPECT_EQ(plan_buckets(layout_of({1, 1, 1}), DType::kF32, 1).buckets.size(), 3u);
}

// What ranks own of a bucket: equal pieces, whatever the number of ranks, cut where the blocks of the norm are.
TEST(BucketPlan, PiecesAreEqualAndWhole) {
  for (const int pieces : {1, 2, 3, 5, 7, 8, 64}) {
    SCOPED_TRACE(pieces);
    ParamLayout layout = layout_of({100, 3000, 1, 700, 5120}, 3);
    const BucketPlan unpadded = plan_buckets(layout, DType::kF32, 16384);
    const BucketPlan plan = plan_pieces(layout, DType::kF32, 16384, pieces);
    EXPECT_EQ(params_of(plan), params_of(unpadded));
    std::int64_t at = 0;
    for (const Bucket& bucket : plan.buckets) {
      EXPECT_EQ(bucket.begin_elems, at);
      EXPECT_EQ(bucket.begin_elems, layout.offset_elems(bucket.first));
      EXPECT_EQ(bucket.elems() % (pieces * ParamLayout::kAlignmentElems), 0);
      EXPECT_GE(bucket.end_elems, layout.offset_elems(bucket.last) + layout.spec(bucket.last).elems());
      at = bucket.end_elems;
    }
    EXPECT_EQ(at, layout.total_elems());
    for (const ParamSpec& spec : layout.specs()) EXPECT_GT(spec.elems(), 0);
    for (std::size_t i = 0; i < layout.size(); ++i)
      EXPECT_EQ(layout.offset_elems(static_cast<ParamId>(i)) % ParamLayout::kAlignmentElems, 0);
  }
}

TEST(BucketPlan, CoversEveryLayoutInOrderWithinTheCap) {
  constexpr std::uint64_t kSeed = 7;
  std::mt19937_64 random(kSeed);
  const auto pick = [&](std::int64_t from, std::int64_t to) {
    return std::uniform_int_distribution<std::int64_t>(from, to)(random);
  };
  for (int round = 0; round < 500; ++round) {
    SCOPED_TRACE("seed " + std::to_string(kSeed) + ", round " + std::to_string(round));
    std::vector<std::int64_t> elems(static_cast<std::size_t>(pick(1, 40)));
    for (std::int64_t& n : elems) n = pick(1, 3000);
    const auto final_at_end = static_cast<std::size_t>(pick(0, static_cast<std::int64_t>(elems.size())));
    const ParamLayout layout = layout_of(elems, final_at_end);
    const DType wire = pick(0, 1) == 0 ? DType::kF32 : DType::kBF16;
    const std::int64_t bytes = pick(1, 20000);
    const BucketPlan plan = plan_buckets(layout, wire, bytes);

    std::int64_t end = 0;
    std::size_t next = 0;
    for (const Bucket& bucket : plan.buckets) {
      EXPECT_EQ(bucket.begin_elems, end);
      EXPECT_EQ(index_of(bucket.first), next);
      ASSERT_GE(index_of(bucket.last), index_of(bucket.first));
      EXPECT_EQ(bucket.begin_elems, layout.offset_elems(bucket.first));
      const bool alone = bucket.first == bucket.last;
      const std::int64_t cap = &bucket == plan.buckets.data() ? bytes / 4 : bytes;
      EXPECT_TRUE(alone || bucket.elems() * static_cast<std::int64_t>(size_bytes(wire)) <= cap);
      const std::size_t group_begin = elems.size() - final_at_end;
      EXPECT_EQ(index_of(bucket.first) >= group_begin, index_of(bucket.last) >= group_begin) << "a bucket crosses";
      end = bucket.end_elems;
      next = index_of(bucket.last) + 1;
    }
    EXPECT_EQ(end, layout.total_elems());
    EXPECT_EQ(next, layout.size());
    const std::string text = plan.describe();
    EXPECT_EQ(static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n')), plan.buckets.size());
  }
}

TEST(BucketPlanDeathTest, NeedsASizeAndALayout) {
  EXPECT_DEATH(plan_buckets(layout_of({1}), DType::kF32, 0), "buckets need a size");
  EXPECT_DEATH(plan_buckets(layout_of({}), DType::kF32, 1), "no parameters");
}

}  // namespace
}  // namespace strake::comm
