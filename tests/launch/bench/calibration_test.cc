#include "launch/bench/calibration.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace strake::launch {
namespace {

RankStep step(double wall_ms, double forward_ms, double backward_ms, double exposed_ms) {
  RankStep out;
  out.wall_ms = wall_ms;
  out.class_ms[static_cast<std::size_t>(StepClass::kForward)] = forward_ms;
  out.class_ms[static_cast<std::size_t>(StepClass::kBackward)] = backward_ms;
  out.class_ms[static_cast<std::size_t>(StepClass::kExposedComm)] = exposed_ms;
  return out;
}

RankMeasurement rank_of(const std::vector<RankStep>& steps) {
  RankMeasurement out;
  out.steps = steps;
  return out;
}

TEST(Calibration, ComparesMediansOfRepeatsMeansOverRanks) {
  // Two repeats of two steps, two ranks.
  const std::vector<RankMeasurement> real{
      rank_of({step(12, 3, 5, 4), step(12, 3, 5, 4), step(20, 3, 5, 4), step(20, 3, 5, 4)}),
      rank_of({step(8, 3, 5, 0), step(8, 3, 5, 0), step(20, 3, 5, 0), step(20, 3, 5, 0)})};
  const std::vector<RankMeasurement> stubbed{rank_of(std::vector(4, step(6, 2, 4, 0))),
                                             rank_of(std::vector(4, step(6, 2, 4, 0)))};
  const Calibration calibration = calibration_of(2, 2, real, stubbed);
  EXPECT_DOUBLE_EQ(calibration.step_ms, 15) << "of 10 and 20";
  EXPECT_DOUBLE_EQ(calibration.stubbed_step_ms, 6);
  EXPECT_DOUBLE_EQ(calibration.efficiency_loss(), 0.6);
  ASSERT_EQ(calibration.efficiency_losses.size(), 2u);
  EXPECT_DOUBLE_EQ(calibration.efficiency_losses[0], 0.4);
  EXPECT_DOUBLE_EQ(calibration.efficiency_losses[1], 0.7);
  EXPECT_DOUBLE_EQ(calibration.compute_dilation(), 8.0 / 6);
  EXPECT_DOUBLE_EQ(calibration.exposed_ms, 2);
  EXPECT_DOUBLE_EQ(calibration.stubbed_exposed_ms, 0);

  const nlohmann::ordered_json json = to_json(calibration);
  EXPECT_DOUBLE_EQ(json.at("efficiency_loss").get<double>(), 0.6);
  EXPECT_DOUBLE_EQ(json.at("compute_dilation").get<double>(), 8.0 / 6);
  const std::string text = table(calibration);
  EXPECT_NE(text.find("efficiency loss 60.0 % (40.0 .. 70.0 between repeats): 15.000 ms a step, 6.000"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("compute dilation 1.333"), std::string::npos) << text;
}

}  // namespace
}  // namespace strake::launch
