#include "launch/train/memory_table.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace strake::launch {
namespace {

MemoryTable table() {
  return {.rows = {{"weights", MemoryKind::kDevice, 3 << 20},
                   {"host staging", MemoryKind::kHost, 1 << 20},
                   {kContextAndLibraries, MemoryKind::kDevice, 7 << 20, true}}};
}

TEST(MemoryTable, SumsByKind) {
  EXPECT_EQ(table().size_bytes(MemoryKind::kDevice), std::size_t{10} << 20);
  EXPECT_EQ(table().size_bytes(MemoryKind::kHost), std::size_t{1} << 20);
  EXPECT_TRUE(table().estimated());
}

TEST(MemoryTable, SaysHowFarTheDriverIsFromIt) {
  MemoryTable measured = table();
  EXPECT_EQ(measured.describe().find("the driver says"), std::string::npos);
  measured.driver_bytes = std::size_t{8} << 20;
  const std::string text = measured.describe();
  EXPECT_NE(text.find("the total is +25.00 % from it"), std::string::npos) << text;
  EXPECT_NE(text.find("context and libraries  device         7340032 bytes     0.007 GiB  estimated\n"),
            std::string::npos)
      << text;
}

TEST(MemoryTable, TravelsAsJson) {
  MemoryTable sent = table();
  for (int i = 0; i < 2; ++i) {
    const MemoryTable come = memory_table_from(nlohmann::ordered_json::parse(to_json(sent).dump()));
    EXPECT_EQ(come.rows, sent.rows);
    EXPECT_EQ(come.driver_bytes, sent.driver_bytes);
    sent.driver_bytes = 12345;
  }
  EXPECT_EQ(to_json(sent)["device_bytes"], 10 << 20);
}

}  // namespace
}  // namespace strake::launch
