#include "runtime/base/dtype.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <set>
#include <string>

namespace strake::test {
namespace {

TEST(DType, SizesNamesAndTypesAgree) {
  EXPECT_EQ(size_bytes(dtype_of<float>), sizeof(float));
  EXPECT_EQ(size_bytes(dtype_of<double>), sizeof(double));
  EXPECT_EQ(size_bytes(dtype_of<BFloat16>), sizeof(BFloat16));
  EXPECT_EQ(size_bytes(dtype_of<std::int32_t>), sizeof(std::int32_t));
  EXPECT_EQ(size_bytes(dtype_of<std::int64_t>), sizeof(std::int64_t));
  EXPECT_EQ(size_bytes(dtype_of<std::uint8_t>), sizeof(std::uint8_t));
  std::set<std::string_view> names;
  for (const DType dtype : {DType::kF32, DType::kF64, DType::kBF16, DType::kI32, DType::kU8, DType::kI64}) {
    names.insert(name_of(dtype));
  }
  EXPECT_EQ(names, (std::set<std::string_view>{"f32", "f64", "bf16", "i32", "u8", "i64"}));
}

TEST(DType, NumbersOnDiskNeverChange) {
  EXPECT_EQ(static_cast<int>(DType::kF32), 1);
  EXPECT_EQ(static_cast<int>(DType::kF64), 2);
  EXPECT_EQ(static_cast<int>(DType::kBF16), 3);
  EXPECT_EQ(static_cast<int>(DType::kI32), 4);
  EXPECT_EQ(static_cast<int>(DType::kU8), 5);
  EXPECT_EQ(static_cast<int>(DType::kI64), 6);
}

TEST(BFloat16, KnownValues) {
  EXPECT_EQ(to_bfloat16(1.0f).bits, 0x3f80);
  EXPECT_EQ(to_bfloat16(-2.0f).bits, 0xc000);
  EXPECT_EQ(to_bfloat16(0.0f).bits, 0x0000);
  EXPECT_EQ(to_bfloat16(-0.0f).bits, 0x8000);
  EXPECT_EQ(to_bfloat16(3.14159265f).bits, 0x4049);
  EXPECT_EQ(to_float(BFloat16{0x4049}), 3.140625f);
  EXPECT_EQ(to_bfloat16(std::numeric_limits<float>::infinity()).bits, 0x7f80);
  EXPECT_EQ(to_bfloat16(-std::numeric_limits<float>::infinity()).bits, 0xff80);
  EXPECT_EQ(to_bfloat16(std::numeric_limits<float>::max()).bits, 0x7f80);  // rounds up to infinity
  EXPECT_EQ(to_bfloat16(std::numeric_limits<float>::denorm_min()).bits, 0x0000);
}

TEST(BFloat16, EveryValueSurvivesTheRoundTrip) {
  for (std::uint32_t bits = 0; bits <= 0xffff; ++bits) {
    const BFloat16 value{static_cast<std::uint16_t>(bits)};
    const float wide = to_float(value);
    if (std::isnan(wide)) {
      ASSERT_TRUE(std::isnan(to_float(to_bfloat16(wide)))) << bits;
      ASSERT_EQ(std::signbit(wide), (bits & 0x8000) != 0) << bits;
    } else {
      ASSERT_EQ(to_bfloat16(wide).bits, value.bits);
    }
  }
}

// Every upper half with the lower halves where rounding turns. The reference decides by distance, in double,
// between the two neighbours; on a tie the even one.
TEST(BFloat16, RoundsToNearestTiesToEven) {
  for (std::uint32_t upper = 0; upper <= 0xffff; ++upper) {
    for (const std::uint32_t lower : {0x0000u, 0x0001u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      const float value = std::bit_cast<float>(upper << 16 | lower);
      const std::uint16_t rounded = to_bfloat16(value).bits;
      if (std::isnan(value)) {
        ASSERT_TRUE(std::isnan(to_float(BFloat16{rounded}))) << upper << " " << lower;
        continue;
      }
      const auto toward_zero = static_cast<std::uint16_t>(upper), away = static_cast<std::uint16_t>(upper + 1);
      // The neighbour of the largest finite value stands for infinity: 2^128.
      const auto magnitude = [](std::uint16_t bits) {
        return (bits & 0x7fff) == 0x7f80 ? std::ldexp(1.0, 128) : std::abs(double{to_float(BFloat16{bits})});
      };
      if (std::isinf(value)) {
        ASSERT_EQ(rounded, toward_zero);
        continue;
      }
      const double below = std::abs(double{value}) - magnitude(toward_zero);
      const double above = magnitude(away) - std::abs(double{value});
      const bool round_away = above < below || (above == below && toward_zero % 2 == 1);
      ASSERT_EQ(rounded, lower == 0 || !round_away ? toward_zero : away) << upper << " " << lower;
    }
  }
}

}  // namespace
}  // namespace strake::test
