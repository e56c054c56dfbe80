// What the CUDA optimizer's kernels are told, for parameters of any size: needs no GPU.
#include <gtest/gtest.h>

#include "kernels/cuda/optimizer_arguments.h"
#include "kernels/device_limits.h"
#include "kernels/optimizer.h"

namespace strake::kernels::cuda {
namespace {

constexpr std::int64_t k32Bits = std::int64_t{1} << 32;

TEST(CudaArguments, ASegmentMayHaveMoreElementsThan32BitsCount) {
  const std::int64_t most_elems = limits_of(DeviceKind::kCuda, DType::kF32).most_elems;
  std::vector<FlatSegment> segments;
  std::int64_t begin = 0;
  for (const std::int64_t size : {k32Bits, k32Bits + 5, std::int64_t{100}, 3 * k32Bits - 1}) {
    segments.push_back({begin, size, size == 100});
    begin += (size + kGroupElems - 1) / kGroupElems * kGroupElems;
  }
  ASSERT_LT(begin, most_elems);
  const std::vector<SegmentTable> tables = segment_tables(segments, most_elems);
  ASSERT_EQ(tables.size(), 1u);
  EXPECT_EQ(tables[0].groups * kGroupElems, most_elems);
  EXPECT_EQ(tables[0].segments, 4);
  std::int64_t blocks = 0;
  for (std::size_t i = 0; i < 4; ++i) {
    const Segment& segment = tables[0].table[i];
    EXPECT_EQ(static_cast<std::int64_t>(segment.elems), segments[i].size_elems);
    EXPECT_EQ(segment.first_group * kGroupElems, segments[i].begin_elems);
    EXPECT_EQ(segment.first_block, blocks);
    EXPECT_EQ(segment.weight_decay, i == 2 ? 1u : 0u);
    blocks += (segments[i].size_elems + kNormBlockElems - 1) / kNormBlockElems;
  }
  EXPECT_EQ(tables[0].blocks, blocks);
}

// However many: every group of the arena and every norm block is in one table, and in order.
TEST(CudaArguments, AnyNumberOfSegmentsFits) {
  for (const std::int64_t count : {1, kMaxSegments, kMaxSegments + 1, 2 * kMaxSegments, 10'000}) {
    SCOPED_TRACE(count);
    std::vector<FlatSegment> segments;
    std::int64_t begin = 0;
    for (std::int64_t i = 0; i < count; ++i) {
      segments.push_back({begin, 1 + i % 3 * kNormBlockElems, i % 2 == 0});
      begin += (segments.back().size_elems + kGroupElems - 1) / kGroupElems * kGroupElems;
      if (i % 5 == 0) begin += kGroupElems;  // a gap
    }
    const std::int64_t flat_elems = begin + 3 * kGroupElems;
    const std::vector<SegmentTable> tables = segment_tables(segments, flat_elems);
    EXPECT_EQ(tables.size(), static_cast<std::size_t>((count + kMaxSegments - 1) / kMaxSegments));
    std::uint32_t group = 0, block = 0;
    std::size_t next = 0;
    for (const SegmentTable& table : tables) {
      EXPECT_EQ(table.first_group, group);
      EXPECT_EQ(table.first_block, block);
      for (std::int32_t i = 0; i < table.segments; ++i, ++next) {
        const Segment& segment = table.table[i];
        EXPECT_EQ(static_cast<std::int64_t>(segment.elems), segments[next].size_elems);
        EXPECT_EQ(segment.first_group * kGroupElems, segments[next].begin_elems);
        EXPECT_EQ(segment.first_block, block);
        EXPECT_GE(segment.first_group, table.first_group);
        EXPECT_LT(segment.first_group, table.first_group + table.groups);
        block += static_cast<std::uint32_t>((segments[next].size_elems + kNormBlockElems - 1) / kNormBlockElems);
      }
      EXPECT_EQ(table.first_block + table.blocks, block);
      group += table.groups;
    }
    EXPECT_EQ(next, segments.size());
    EXPECT_EQ(group * kGroupElems, flat_elems);
    EXPECT_EQ(block, norm_blocks(segments));
  }
}

TEST(CudaArguments, TheLargestModelHasGridsThatCudaTakes) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const DeviceLimits limits = limits_of(DeviceKind::kCuda, dtype);
    EXPECT_GT(blocks_for(limits.most_elems, 1024), 0);         // AdamW, casts
    EXPECT_GT(blocks_for(limits.most_tokens, 1), 0);           // a block a row: cross-entropy, wide layer norms
    EXPECT_GT(blocks_for(std::int64_t{1} << 40, 256 * 4), 0);  // activations: 4 TiB of f32
    EXPECT_LE(2 * limits.most_channels, kMostBlocks);          // layer norm counts the columns of weight and bias
    const FlatSegment all[] = {{0, limits.most_elems, true}};
    EXPECT_GT(segment_tables(all, limits.most_elems)[0].blocks, 0u);
  }
}

TEST(CudaArgumentsDeathTest, SizesThatDoNotFitAreRefused) {
  EXPECT_EQ(blocks_for(kMostBlocks * 256, 256), kMostBlocks);
  EXPECT_DEATH(blocks_for(kMostBlocks * 256 + 1, 256), "more blocks than a grid can have");
  EXPECT_DEATH(segment_tables({}, k32Bits * kGroupElems), "groups are counted in 32 bits");
  const FlatSegment outside[] = {{2 * kGroupElems, 1, false}}, across[] = {{0, kGroupElems + 1, false}};
  EXPECT_DEATH(segment_tables(outside, kGroupElems), "lies in the arena");
  EXPECT_DEATH(segment_tables(across, kGroupElems), "lies in the arena");
  const FlatSegment back[] = {{kGroupElems, 1, false}, {0, 1, false}};
  EXPECT_DEATH(segment_tables(back, 2 * kGroupElems), "segments ascend");
  const FlatSegment between[] = {{1, 1, false}};
  EXPECT_DEATH(segment_tables(between, kGroupElems), "begin with a group");
}

TEST(CudaArguments, AdamWsConstantsAreThoseOfDouble) {
  for (const auto& [beta1, beta2] : {std::pair{0.9, 0.95}, std::pair{0.9, 0.999}, std::pair{0.9999, 0.999999}}) {
    const AdamWConstants constants({beta1, beta2, 1e-8, 0.1});
    EXPECT_NEAR(static_cast<double>(constants.one_minus_beta1) / (1 - beta1), 1, 1e-7);
    EXPECT_NEAR(static_cast<double>(constants.one_minus_beta2) / (1 - beta2), 1, 1e-7);
  }
}

}  // namespace
}  // namespace strake::kernels::cuda
