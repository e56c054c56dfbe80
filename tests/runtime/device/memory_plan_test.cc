#include "runtime/device/memory_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace strake::test {
namespace {

std::size_t aligned(std::size_t size_bytes) {
  return (size_bytes + Arena::kAlignmentBytes - 1) / Arena::kAlignmentBytes * Arena::kAlignmentBytes;
}

void touch(Stream& stream, const Tensor& tensor) {
  stream.launch({.label = {"touch"}, .kind = "test", .reads = {}, .writes = {&tensor, 1}}, {});
}

class MemoryPlanTest : public testing::Test {
 protected:
  // Offsets of the blocks, in order of reservation.
  std::vector<std::size_t> plan(std::vector<MemoryBlock>* blocks = nullptr) {
    std::vector<MemoryBlock> planned = memory_.blocks();
    total_bytes_ = plan_memory(planned, planning_, device_.recording());
    std::vector<std::size_t> offsets;
    for (const MemoryBlock& block : planned) offsets.push_back(block.offset_bytes);
    if (blocks != nullptr) *blocks = planned;
    return offsets;
  }
  Tensor block(std::int64_t size_bytes) { return memory_.reserve("block", DType::kU8, {size_bytes}); }

  Arena planning_{"planning", MemoryKind::kDevice};
  ActivationMemory memory_{planning_};
  PlanDevice device_;
  std::unique_ptr<Stream> stream_ = device_.make_stream("compute", StreamPriority::kNormal);
  std::size_t total_bytes_ = 0;
};

TEST_F(MemoryPlanTest, LivesThatDoNotMeetShareBytes) {
  const Tensor a = block(1000), b = block(1000);
  touch(*stream_, a);
  touch(*stream_, a);
  touch(*stream_, b);
  std::vector<MemoryBlock> blocks;
  EXPECT_EQ(plan(&blocks), (std::vector<std::size_t>{0, 0}));
  EXPECT_EQ(total_bytes_, 1024u);
  EXPECT_EQ(blocks[0].first_entry, 0u);
  EXPECT_EQ(blocks[0].last_entry, 1u);
  EXPECT_EQ(blocks[1].first_entry, 2u);
  EXPECT_EQ(blocks[1].last_entry, 2u);
}

TEST_F(MemoryPlanTest, LivesThatMeetInOneOperationDoNot) {
  const Tensor a = block(1000), b = block(1000);
  touch(*stream_, a);
  stream_->launch({.label = {"f"}, .kind = "test", .reads = {&a, 1}, .writes = {&b, 1}}, {});
  EXPECT_EQ(plan(), (std::vector<std::size_t>{0, 1024}));
  EXPECT_EQ(total_bytes_, 2048u);
}

TEST_F(MemoryPlanTest, ALifeLastsFromItsFirstToItsLastTouch) {
  const Tensor kept = block(512), first = block(256), second = block(256);
  touch(*stream_, kept);
  touch(*stream_, first);
  touch(*stream_, second);
  touch(*stream_, kept.flat(3, 1));  // a view keeps the block alive
  const auto offsets = plan();
  EXPECT_EQ(offsets, (std::vector<std::size_t>{0, 512, 512}));
  EXPECT_EQ(total_bytes_, 768u);
}

TEST_F(MemoryPlanTest, FillsTheLowestGapThatFits) {
  const Tensor low = block(1024), high = block(768), large = block(2048), small = block(512);
  // large is gone before the others come; small meets both.
  touch(*stream_, large);
  stream_->launch({.label = {"f"}, .kind = "test", .reads = {&low, 1}, .writes = {&high, 1}}, {});
  stream_->launch({.label = {"g"}, .kind = "test", .reads = {&high, 1}, .writes = {&small, 1}}, {});
  const auto offsets = plan();
  EXPECT_EQ(offsets[2], 0u);  // the largest is placed first
  EXPECT_EQ(offsets[0], 0u);
  EXPECT_EQ(offsets[1], 1024u);  // behind low, which lives with it
  EXPECT_EQ(offsets[3], 0u);     // low is gone: the gap before high
  EXPECT_EQ(total_bytes_, 2048u);
}

TEST_F(MemoryPlanTest, UnusedBlocksTakePartWithoutALife) {
  const Tensor used = block(256);
  block(5000);
  touch(*stream_, used);
  std::vector<MemoryBlock> blocks;
  plan(&blocks);
  EXPECT_TRUE(blocks[0].used);
  EXPECT_FALSE(blocks[1].used);
  EXPECT_EQ(blocks[0].offset_bytes, 0u);
  EXPECT_EQ(total_bytes_, aligned(5000));  // yet large enough to be a valid tensor
}

TEST_F(MemoryPlanTest, OtherArenasAndEmptyTensorsDoNotMatter) {
  Arena weights("weights", MemoryKind::kDevice);
  const Tensor weight = Tensor::reserve(weights, DType::kU8, {100000});
  const Tensor empty = block(0), a = block(256);
  touch(*stream_, weight);
  touch(*stream_, empty);
  touch(*stream_, a);
  std::vector<MemoryBlock> blocks;
  plan(&blocks);
  EXPECT_FALSE(blocks[0].used);
  EXPECT_EQ(total_bytes_, 256u);
}

TEST_F(MemoryPlanTest, EmptyPlanNeedsNothing) {
  EXPECT_TRUE(plan().empty());
  EXPECT_EQ(total_bytes_, 0u);
}

TEST_F(MemoryPlanTest, SecondPassGetsThePlannedOffsets) {
  const auto reserve = [](ActivationMemory& memory) {
    return std::vector<Tensor>{memory.reserve("h0.in", DType::kF32, {4, 16}),
                               memory.reserve("h0.out", DType::kBF16, {64}),
                               memory.reserve("h1.in", DType::kF32, {4, 16})};
  };
  for (const Tensor& tensor : reserve(memory_)) touch(*stream_, tensor);
  std::vector<MemoryBlock> blocks;
  plan(&blocks);

  Arena real("activations", MemoryKind::kDevice);
  real.reserve(total_bytes_);
  ActivationMemory second(real, blocks);
  const auto tensors = reserve(second);
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    EXPECT_EQ(&tensors[i].arena(), &real);
    EXPECT_EQ(tensors[i].offset_bytes(), blocks[i].offset_bytes);
  }
  EXPECT_EQ(tensors[0].describe(), "f32[4, 16]");
  EXPECT_EQ(tensors[1].describe(), "bf16[64]");
  EXPECT_EQ(second.blocks().size(), 3u);
}

TEST_F(MemoryPlanTest, SecondPassMustRepeatTheFirst) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  memory_.reserve("a", DType::kF32, {16});
  memory_.reserve("b", DType::kF32, {16});
  std::vector<MemoryBlock> blocks;
  plan(&blocks);
  Arena real("activations", MemoryKind::kDevice);
  const auto second_pass = [&](auto reserve) {
    ActivationMemory second(real, blocks);
    reserve(second);
  };
  const std::string differs = "differs from the planning pass";
  EXPECT_DEATH(second_pass([](auto& memory) { memory.reserve("b", DType::kF32, {16}); }), "'b' " + differs);
  EXPECT_DEATH(second_pass([](auto& memory) { memory.reserve("a", DType::kF32, {17}); }), "'a' " + differs);
  EXPECT_DEATH(second_pass([](auto& memory) { memory.reserve("a", DType::kBF16, {16}); }), "'a' " + differs);
  EXPECT_DEATH(second_pass([](auto& memory) {
                 memory.reserve("a", DType::kF32, {16});
                 memory.reserve("b", DType::kF32, {16});
                 memory.reserve("c", DType::kF32, {16});
               }),
               "'c' " + differs);
}

TEST_F(MemoryPlanTest, AccessPastItsBlockIsAProgrammerError) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  block(256);
  block(256);
  touch(*stream_, Tensor(planning_, 128, DType::kU8, {256}));
  EXPECT_DEATH(plan(), "an access reaches past 'block'");
}

TEST_F(MemoryPlanTest, AccessOutsideEveryBlockIsAProgrammerError) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  touch(*stream_, Tensor(planning_, 0, DType::kU8, {16}));
  EXPECT_DEATH(plan(), "an access of the planning arena lies in no block");
}

// Random reservations and programs: blocks alive together never overlap, nothing needs more than without a
// plan, and the live bytes of the fullest moment fit.
TEST(MemoryPlanProperty, BlocksAliveTogetherNeverOverlap) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  const auto below = [&random](std::size_t bound) { return static_cast<std::size_t>(random() % bound); };

  std::size_t shared = 0;
  for (int program = 0; program < 300; ++program) {
    Arena planning("planning", MemoryKind::kDevice);
    ActivationMemory memory(planning);
    PlanDevice device;
    const auto stream = device.make_stream("compute", StreamPriority::kNormal);
    std::vector<Tensor> tensors;
    for (std::size_t left = 1 + below(40); left > 0; --left) {
      tensors.push_back(memory.reserve("block", DType::kU8, {static_cast<std::int64_t>(below(4000))}));
    }
    struct Life {
      std::size_t first = SIZE_MAX, last = 0;
    };
    std::vector<Life> lives(tensors.size());
    const std::size_t operations = below(120), window = 1 + below(tensors.size());
    for (std::size_t operation = 0; operation < operations; ++operation) {
      std::vector<Tensor> reads, writes;
      for (std::size_t left = below(4); left > 0; --left) {
        const std::size_t index = std::min(tensors.size() - 1, operation * tensors.size() / 120 + below(window));
        (below(2) == 0 ? reads : writes).push_back(tensors[index]);
        if (tensors[index].elems() == 0) continue;
        lives[index].first = std::min(lives[index].first, operation);
        lives[index].last = operation;
      }
      stream->launch({.label = {"f"}, .kind = "test", .reads = reads, .writes = writes}, {});
    }

    std::vector<MemoryBlock> blocks = memory.blocks();
    const std::size_t total_bytes = plan_memory(blocks, planning, device.recording());
    std::size_t sum_bytes = 0, largest_bytes = 0;
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      sum_bytes += aligned(blocks[i].size_bytes);
      largest_bytes = std::max(largest_bytes, aligned(blocks[i].size_bytes));
      ASSERT_EQ(blocks[i].used, lives[i].first != SIZE_MAX);
      ASSERT_EQ(blocks[i].offset_bytes % Arena::kAlignmentBytes, 0u);
      ASSERT_LE(blocks[i].offset_bytes + blocks[i].size_bytes, total_bytes);
      for (std::size_t j = 0; j < i; ++j) {
        if (!blocks[i].used || !blocks[j].used) continue;
        const bool meet = lives[i].first <= lives[j].last && lives[j].first <= lives[i].last;
        const bool overlap = blocks[i].offset_bytes < blocks[j].offset_bytes + blocks[j].size_bytes &&
                             blocks[j].offset_bytes < blocks[i].offset_bytes + blocks[i].size_bytes;
        ASSERT_FALSE(meet && overlap) << "program " << program << ", blocks " << j << " and " << i;
        shared += overlap ? 1 : 0;
      }
    }
    ASSERT_LE(total_bytes, sum_bytes);
    std::size_t fullest_bytes = largest_bytes;
    for (std::size_t operation = 0; operation < operations; ++operation) {
      std::size_t alive_bytes = 0;
      for (std::size_t i = 0; i < blocks.size(); ++i) {
        if (lives[i].first <= operation && operation <= lives[i].last) alive_bytes += aligned(blocks[i].size_bytes);
      }
      fullest_bytes = std::max(fullest_bytes, alive_bytes);
    }
    ASSERT_GE(total_bytes, fullest_bytes);
  }
  EXPECT_GT(shared, 1000u);
}

}  // namespace
}  // namespace strake::test
