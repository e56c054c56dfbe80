#include "launch/bench/step_blocks.h"

#include <gtest/gtest.h>

#include <string>

namespace strake::launch {
namespace {

// A letter a step: real or stubbed; capitals count.
std::string letters(const StepBlocks& blocks) {
  std::string out;
  for (std::int64_t step = 0; step < blocks.total(); ++step) {
    const bool counts = blocks.counted(step);
    out += blocks.stubbed(step) ? (counts ? 'S' : 's') : (counts ? 'R' : 'r');
  }
  return out;
}

TEST(StepBlocks, AreOneRunBehindAWarmUp) {
  EXPECT_EQ(letters({.warmup = 2, .steps = 3, .repeats = 2}), "rrRRRRRR");
  EXPECT_EQ(letters({.warmup = 2, .steps = 3, .repeats = 2, .communication = Communication::kStubbed}), "ssSSSSSS");
}

TEST(StepBlocks, AlternateWhereTheyAreCompared) {
  EXPECT_EQ(letters({.warmup = 1, .steps = 3, .repeats = 3, .communication = Communication::kCalibrated}),
            "r"
            "rrRRR"
            "ssSSS"
            "ssSSS"
            "rrRRR"
            "rrRRR"
            "ssSSS");
}

}  // namespace
}  // namespace strake::launch
