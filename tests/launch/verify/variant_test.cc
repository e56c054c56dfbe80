#include "launch/verify/variant.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "launch/verify/verify_overlap.h"
#include "runtime/base/error.h"

namespace strake::launch {
namespace {

Config config_of(std::int64_t global_batch, std::int64_t micro_batch) {
  Config config;
  config.train.global_batch = global_batch;
  config.train.micro_batch = micro_batch;
  config.comm.bucket_mib = 0.5;
  return config;
}

std::vector<std::pair<std::int64_t, std::int64_t>> pairs(const std::vector<Cell>& cells) {
  std::vector<std::pair<std::int64_t, std::int64_t>> out;
  for (const Cell& cell : cells) out.emplace_back(cell.micro_batch, cell.accumulation);
  return out;
}

TEST(Cells, AreTheConfigsAndThoseOfSmallMicroBatchesThatDivideTheBatch) {
  using Pairs = std::vector<std::pair<std::int64_t, std::int64_t>>;
  EXPECT_EQ(pairs(cells_of(config_of(32, 8), 2)), (Pairs{{8, 2}, {1, 16}, {2, 8}}));
  EXPECT_EQ(pairs(cells_of(config_of(9, 3), 3)), (Pairs{{3, 1}, {1, 3}})) << "9 sequences are no 2 x 3";
  EXPECT_EQ(pairs(cells_of(config_of(4, 2), 2)), (Pairs{{2, 1}, {1, 2}}));
  EXPECT_EQ(pairs(cells_of(config_of(1, 1), 1)), (Pairs{{1, 1}}));
  EXPECT_THROW(cells_of(config_of(32, 8), 3), ConfigError);
}

TEST(Variants, VaryEveryThingThatIsPromisedToChangeNothing) {
  const Config config = config_of(32, 8);
  const std::vector<Variant> variants = variants_of(config, 2);
  EXPECT_FALSE(variants.front().overlap);
  EXPECT_EQ(variants.front().bucket_mib, kOneBucketMib);
  std::set<std::string> names, late;
  std::set<bool> overlaps;
  std::set<double> sizes;
  std::set<models::Recompute> recomputed{config.train.recompute};
  for (const Variant& variant : variants) {
    EXPECT_TRUE(names.insert(variant.name).second) << variant.name << " is there twice";
    overlaps.insert(variant.overlap);
    sizes.insert(variant.bucket_mib);
    if (!variant.late_stream.empty()) late.insert(variant.late_stream);
    if (variant.late_host) late.insert("host");
    if (variant.recompute.has_value()) recomputed.insert(*variant.recompute);
  }
  EXPECT_EQ(overlaps.size(), 2u);
  EXPECT_EQ(sizes, (std::set<double>{kBucketEachMib, 0.5, kOneBucketMib}));
  EXPECT_EQ(late, (std::set<std::string>{"compute", "comm", "copy-in", "host", "all"}));
  EXPECT_EQ(recomputed.size(), 3u);
  const auto sharded = std::ranges::count(variants, models::Shard::kOptimizer, &Variant::shard);
  EXPECT_EQ(2 * sharded, static_cast<std::ptrdiff_t>(variants.size())) << "each in both ways";
  EXPECT_EQ(std::ranges::count(variants_of(config, 1), models::Shard::kOptimizer, &Variant::shard), 0)
      << "one rank has nobody to share with";
}

TEST(Variants, AreAppliedToAConfig) {
  Config config = config_of(32, 8);
  config.train.recompute = models::Recompute::kBlock;
  Variant variant{"as it is", false, 7};
  EXPECT_EQ(with(config, variant).train.recompute, models::Recompute::kBlock);
  variant.recompute = models::Recompute::kNone;
  variant.shard = models::Shard::kOptimizer;
  const Config varied = with(config, variant);
  EXPECT_EQ(varied.train.recompute, models::Recompute::kNone);
  EXPECT_EQ(varied.train.shard, models::Shard::kOptimizer);
  EXPECT_EQ(varied.comm.bucket_mib, 7);
  EXPECT_FALSE(varied.comm.overlap);
}

TEST(ChosenVariants, KeepWhatTheyAreComparedWith) {
  const Config config = config_of(32, 8);
  const auto all = variants_to_verify(config, 2, {});
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all.front().variants.size(), variants_of(config, 2).size());

  const auto late = variants_to_verify(config, 2, {"compute late", "host late"});
  ASSERT_EQ(late.size(), 3u);
  for (const CellOfVariants& cell : late) {
    ASSERT_EQ(cell.variants.size(), 5u);
    EXPECT_EQ(cell.variants[0].name, "serial, one bucket");
    EXPECT_EQ(cell.variants[1].name, "compute late");
    EXPECT_EQ(cell.variants[4].name, "host late, sharded");
  }

  const auto one_cell = variants_to_verify(config, 2, {"micro-batch 2 x 8: recompute block, sharded"});
  ASSERT_EQ(one_cell.size(), 1u);
  EXPECT_EQ(one_cell[0].cell.micro_batch, 2);
  ASSERT_EQ(one_cell[0].variants.size(), 2u);
}

TEST(ChosenVariants, ThatThereAreNotAreAnErrorThatNamesThem) {
  try {
    variants_to_verify(config_of(32, 8), 2, {"comput late"});
    FAIL() << "was accepted";
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("comput late"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("micro-batch 1 x 16: compute late"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace strake::launch
