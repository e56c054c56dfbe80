#include "runtime/base/random.h"

#include <gtest/gtest.h>

namespace strake {
namespace {

// The compiler may compute sine and cosine of a pair together; every bit must be that of the single value.
TEST(Philox, APairHoldsTheBitsOfItsTwoValues) {
  const Philox random(random_key(3, "weights"));
  for (std::uint64_t pair = 0; pair < 300'000; ++pair) {
    const auto both = random.normal_pair(pair);
    ASSERT_EQ(both[0], random.normal(2 * pair)) << pair;
    ASSERT_EQ(both[1], random.normal(2 * pair + 1)) << pair;
  }
}

}  // namespace
}  // namespace strake
