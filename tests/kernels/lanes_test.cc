// The vector primitives under the CPU kernels, at the width that every CPU has.
#define STRAKE_VECTOR_NAMESPACE lanes_under_test
#define STRAKE_VECTOR_LANES 4
#include "kernels/cpu/vector/lanes.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace strake::kernels::cpu::lanes_under_test {
namespace {

double largest_error_of_exponential(float begin, float end) {
  double largest = 0;
  for (float x = begin; x < end; x = std::nextafter(x + std::abs(x) * 1e-5f, end)) {
    const double exact = std::exp(static_cast<double>(x));
    largest = std::max(largest, std::abs(static_cast<double>(exponential(broadcast(x))[0]) - exact) / exact);
  }
  return largest;
}

TEST(Lanes, ExponentialIsAsAccurateAsItsHeaderSays) {
  EXPECT_LE(largest_error_of_exponential(-87.3f, -1e-6f), 2e-7);
  EXPECT_LE(largest_error_of_exponential(1e-6f, 88.3f), 2e-7);
}

TEST(Lanes, ExponentialAtTheEnds) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const auto e = [](float x) { return exponential(broadcast(x))[0]; };
  EXPECT_EQ(e(0), 1.0f);
  EXPECT_EQ(e(-0.0f), 1.0f);
  EXPECT_EQ(e(-88), 0.0f);
  EXPECT_EQ(e(-1e30f), 0.0f);
  EXPECT_EQ(e(-kInfinity), 0.0f);
  EXPECT_GT(e(88.37f), 2.3e38f);
  EXPECT_EQ(e(1e30f), e(88.37f));
  EXPECT_EQ(e(kInfinity), e(88.37f));
  EXPECT_TRUE(std::isnan(e(std::nanf(""))));
}

TEST(Lanes, EndOfARowCountsOnlyItsElements) {
  const float values[] = {1, 2, 3, 4, 5, 6};
  float copied[] = {-1, -1, -1, -1, -1, -1, -1};
  std::vector<float> sums;
  for_lanes(6, [&](std::int64_t i, auto part) {
    store(copied + i, load(values + i, part), part);
    sums.push_back(sum(keep(load(values + i, part) + 10.0f, part)));
  });
  EXPECT_EQ(std::vector<float>(copied, copied + 7), (std::vector<float>{1, 2, 3, 4, 5, 6, -1}));
  EXPECT_EQ(sums, (std::vector<float>{50, 31}));
  EXPECT_EQ(maximum(load(values, First{2}, -7.0f)), 2.0f);
  EXPECT_EQ(load(values, First{2}, -7.0f)[3], -7.0f);
}

}  // namespace
}  // namespace strake::kernels::cpu::lanes_under_test
