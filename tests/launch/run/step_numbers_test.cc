#include "launch/run/step_numbers.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace strake::launch {
namespace {

TEST(StepNumbers, AreReadAsTheyWereWritten) {
  const StepNumbers numbers{.loss = 0.1f, .learning_rate = 1.0 / 3, .grad_norm = 1e-30};
  EXPECT_EQ(step_numbers_from_json(to_json(numbers)), numbers);
  EXPECT_EQ(to_json({.loss = 2.5, .learning_rate = 0.5, .grad_norm = 4}), R"({"grad_norm":4.0,"loss":2.5,"lr":0.5})");
}

TEST(StepNumbers, WhatIsNotFiniteIsNotKnown) {
  const auto read = step_numbers_from_json(
      to_json({.loss = std::numeric_limits<double>::infinity(), .learning_rate = 1, .grad_norm = std::nan("")}));
  ASSERT_TRUE(read.has_value());
  EXPECT_TRUE(std::isnan(read->loss));
  EXPECT_EQ(read->learning_rate, 1);
  EXPECT_TRUE(std::isnan(read->grad_norm));
}

TEST(StepNumbers, OfOlderProgramsAndImportedWeightsThereAreNone) {
  for (const char* text : {"", "{", "[1]", "2.5"}) EXPECT_EQ(step_numbers_from_json(text), std::nullopt) << text;
}

}  // namespace
}  // namespace strake::launch
