// What the CUDA optimizer's kernels are told, for parameters of any size: needs no GPU.
#include <gtest/gtest.h>

#include "kernels/cuda/optimizer_arguments.h"
#include "kernels/device_limits.h"

namespace strake::kernels::cuda {
namespace {

constexpr std::int64_t k32Bits = std::int64_t{1} << 32;

TEST(CudaArguments, ASegmentMayHaveMoreElementsThan32BitsCount) {
  const std::int64_t sizes[] = {k32Bits, k32Bits + 5, 100, 3 * k32Bits - 1};
  const std::int64_t most_elems = limits_of(DeviceKind::kCuda, DType::kF32).most_elems;
  SegmentTable table(most_elems);
  EXPECT_EQ(table.groups * kGroupElems, most_elems);
  std::int64_t begin = 0, blocks = 0;
  for (const std::int64_t size : sizes) {
    table.add(begin, size, size == 100);
    const Segment& segment = table.table[table.segments - 1];
    EXPECT_EQ(static_cast<std::int64_t>(segment.elems), size);
    EXPECT_EQ(segment.first_group * kGroupElems, begin);
    EXPECT_EQ(segment.first_block, blocks);
    EXPECT_EQ(segment.weight_decay, size == 100 ? 1u : 0u);
    begin += (size + kGroupElems - 1) / kGroupElems * kGroupElems;
    blocks += (size + kNormBlockElems - 1) / kNormBlockElems;
  }
  EXPECT_EQ(table.segments, 4);
  EXPECT_EQ(table.blocks, blocks);
  EXPECT_LT(begin, most_elems);
}

TEST(CudaArguments, TheLargestModelHasGridsThatCudaTakes) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const DeviceLimits limits = limits_of(DeviceKind::kCuda, dtype);
    EXPECT_GT(blocks_for(limits.most_elems, 1024), 0);         // AdamW, casts
    EXPECT_GT(blocks_for(limits.most_tokens, 1), 0);           // a block a row: cross-entropy
    EXPECT_GT(blocks_for(std::int64_t{1} << 40, 256 * 4), 0);  // activations: 4 TiB of f32
    SegmentTable table(limits.most_elems);
    table.add(0, limits.most_elems, true);
    EXPECT_GT(table.blocks, 0u);
  }
}

TEST(CudaArgumentsDeathTest, SizesThatDoNotFitAreRefused) {
  EXPECT_EQ(blocks_for(kMostBlocks * 256, 256), kMostBlocks);
  EXPECT_DEATH(blocks_for(kMostBlocks * 256 + 1, 256), "more blocks than a grid can have");
  EXPECT_DEATH(SegmentTable(k32Bits * kGroupElems), "groups are counted in 32 bits");
  EXPECT_DEATH(SegmentTable(kGroupElems).add(2 * kGroupElems, 1, false), "lies in the arena");
  SegmentTable table(kGroupElems);
  EXPECT_DEATH(table.add(0, k32Bits * kNormBlockElems, false), "more norm blocks");
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
