#include "launch/bench/kernel_blocks.h"

#include <gtest/gtest.h>

#include <string>

namespace strake::launch {
namespace {

TEST(KernelBlocks, TimesTheMiddleOfOneRun) {
  constexpr KernelBlocks blocks{.warmup = 3, .steps = 2};
  std::string parts, timed;
  for (std::int64_t step = 0; step < blocks.total(); ++step) {
    parts += "-bta"[static_cast<int>(blocks.part(step))];
    timed += blocks.times_operations(step) ? 't' : '-';
  }
  EXPECT_EQ(parts, "---bb--tt--aa");
  EXPECT_EQ(timed, "-----tttt----") << "marks are made in steps that do not count";
}

}  // namespace
}  // namespace strake::launch
