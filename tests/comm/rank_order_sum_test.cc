#include "comm/rank_order_sum.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace strake::comm {
namespace {

template <typename T>
std::vector<T> sum(std::vector<std::vector<T>> inputs, std::size_t output_input) {
  std::vector<const std::byte*> from;
  for (const std::vector<T>& input : inputs) from.push_back(reinterpret_cast<const std::byte*>(input.data()));
  std::byte* to = reinterpret_cast<std::byte*>(inputs[output_input].data());
  sum_in_rank_order(dtype_of<T>, from, {&to, 1}, static_cast<std::int64_t>(inputs[0].size()));
  return inputs[output_input];
}

TEST(RankOrderSum, AddsInTheOrderGivenWhereverTheOutputLies) {
  // (1 + 2^25) - 2^25: 1 is lost when it meets the large one first.
  const float large = std::ldexp(1.0f, 25);
  for (std::size_t output = 0; output < 3; ++output) {
    EXPECT_EQ(sum<float>({{1}, {large}, {-large}}, output)[0], 0.0f);
    EXPECT_EQ(sum<float>({{large}, {-large}, {1}}, output)[0], 1.0f);
    EXPECT_EQ(sum<double>({{1}, {large}, {-large}}, output)[0], 1.0);
  }
}

TEST(RankOrderSum, BFloat16IsRoundedOnce) {
  // In f32, 256 + 0.75 + 0.75 = 257.5, which rounds to 258; rounded after each addition it would be 256.
  const auto bf16 = [](float value) { return to_bfloat16(value); };
  EXPECT_EQ(to_float(sum<BFloat16>({{bf16(256)}, {bf16(0.75f)}, {bf16(0.75f)}}, 1)[0]), 258.0f);
}

TEST(RankOrderSum, OneInputIsKeptAsItIs) {
  const std::vector<float> values{-0.0f, std::numeric_limits<float>::denorm_min(),
                                  std::numeric_limits<float>::infinity()};
  const std::vector<float> kept = sum<float>({values}, 0);
  EXPECT_EQ(std::memcmp(kept.data(), values.data(), sizeof(float) * values.size()), 0);
  EXPECT_TRUE(std::signbit(sum<float>({{-0.0f}, {-0.0f}}, 0)[0]));
}

TEST(RankOrderSum, NonFiniteValuesSurvive) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_TRUE(std::isnan(sum<float>({{infinity}, {-infinity}}, 0)[0]));
  EXPECT_TRUE(std::isnan(to_float(sum<BFloat16>({{to_bfloat16(NAN)}, {to_bfloat16(1)}}, 0)[0])));
  EXPECT_EQ(to_float(sum<BFloat16>({{to_bfloat16(infinity)}, {to_bfloat16(1)}}, 0)[0]), infinity);
}

TEST(RankOrderSum, WritesEveryOutput) {
  // Longer than a block, and not a multiple of one.
  const std::size_t elems = 5000;
  std::vector<float> a(elems), b(elems), c(elems), expected(elems);
  for (std::size_t i = 0; i < elems; ++i) {
    a[i] = static_cast<float>(i);
    b[i] = 0.5f;
    c[i] = -3;
    expected[i] = (a[i] + b[i]) + c[i];
  }
  const std::vector<const std::byte*> inputs{reinterpret_cast<std::byte*>(a.data()),
                                             reinterpret_cast<std::byte*>(b.data()),
                                             reinterpret_cast<std::byte*>(c.data())};
  const std::vector<std::byte*> outputs{reinterpret_cast<std::byte*>(a.data()), reinterpret_cast<std::byte*>(b.data()),
                                        reinterpret_cast<std::byte*>(c.data())};
  sum_in_rank_order(DType::kF32, inputs, outputs, static_cast<std::int64_t>(elems));
  EXPECT_EQ(a, expected);
  EXPECT_EQ(b, expected);
  EXPECT_EQ(c, expected);
}

TEST(RankOrderSum, PiecesCoverTheRange) {
  for (const std::int64_t range : {0, 1, 63, 64, 65, 1000, 1000003}) {
    for (int size = 1; size <= 9; ++size) {
      std::int64_t end = 0;
      for (int rank = 0; rank < size; ++rank) {
        const Piece piece = piece_of(range, rank, size);
        EXPECT_EQ(piece.begin_elems, end);
        EXPECT_GE(piece.elems, 0);
        EXPECT_LE(piece.elems, (range + size - 1) / size + 63);
        end += piece.elems;
      }
      EXPECT_EQ(end, range) << size << " pieces";
    }
  }
}

TEST(RankOrderSumDeathTest, IntegersAreNotReduced) {
  std::int32_t value = 1;
  const std::byte* in = reinterpret_cast<std::byte*>(&value);
  std::byte* out = reinterpret_cast<std::byte*>(&value);
  EXPECT_DEATH(sum_in_rank_order(DType::kI32, {&in, 1}, {&out, 1}, 1), "not i32");
}

}  // namespace
}  // namespace strake::comm
