// The product that `strake bench comm` times beside collectives.
#include "launch/bench/product_beside.h"

#include <gtest/gtest.h>

#include "runtime/device/cpu/cpu_device.h"

namespace strake::launch {
namespace {

TEST(ProductBeside, ShapesAreThreeSizes) {
  const auto shape = product_shape_from("8192x16384x2048");
  ASSERT_TRUE(shape.has_value());
  EXPECT_EQ(shape->rows, 8192);
  EXPECT_EQ(shape->outs, 16384);
  EXPECT_EQ(shape->ins, 2048);
  EXPECT_EQ(shape->to_text(), "8192x16384x2048");
  for (const char* text : {"", "8", "8x8", "8x8x", "x8x8", "8x8x8x8", "8x8x8 ", " 8x8x8", "8X8X8", "0x8x8", "8x-1x8",
                           "8x8x+8", "1048577x8x8", "99999999999999999999x8x8", "8x8xa"}) {
    EXPECT_FALSE(product_shape_from(text).has_value()) << text;
  }
}

TEST(ProductBeside, IsTimedOneByOne) {
  const auto device = make_cpu_device();
  ProductBeside product(*device, {.rows = 64, .outs = 48, .ins = 32}, 0);
  EXPECT_GT(product.alone_us(), 0);
  for (int i = 0; i < ProductBeside::kProducts; ++i) product.enqueue(i);
  product.finish();
  device->check();
  for (int i = 0; i < ProductBeside::kProducts; ++i) {
    EXPECT_GT(device->elapsed(product.begin(i), product.end(i)).count(), 0);
    if (i > 0) {
      EXPECT_GE(device->elapsed(product.end(i - 1), product.begin(i)).count(), 0);
    }
  }
}

}  // namespace
}  // namespace strake::launch
