#include "launch/report/progress.h"

#include <gtest/gtest.h>

#include <string>

namespace strake::launch {
namespace {

using namespace std::chrono_literals;

Progress example() {
  Progress p;
  p.step = 840;
  p.steps = 2000;
  p.loss = 2.10344;
  p.learning_rate = 5.4e-4;
  p.grad_norm = 0.612;
  p.tokens_per_s = 41'234;
  p.mfu = 0.381;
  p.exposed = 0.034;
  p.elapsed = 125s;
  p.left = 190s;
  p.next_checkpoint.step = 1000;
  return p;
}

TEST(CountText, HasThreeDigitsAndAUnit) {
  EXPECT_EQ(count_text(0), "0");
  EXPECT_EQ(count_text(987), "987");
  EXPECT_EQ(count_text(999.6), "1.00k");
  EXPECT_EQ(count_text(12'345), "12.3k");
  EXPECT_EQ(count_text(123'456'789), "123M");
  EXPECT_EQ(count_text(999'600'000), "1.00B");
  EXPECT_EQ(count_text(1.5e15), "1500T");
}

TEST(DurationText, IsShort) {
  EXPECT_EQ(duration_text(0s), "0ms");
  EXPECT_EQ(duration_text(60ms), "60ms");
  EXPECT_EQ(duration_text(8300ms), "8.3s");
  EXPECT_EQ(duration_text(9960ms), "10s");
  EXPECT_EQ(duration_text(59.6s), "1m00s");
  EXPECT_EQ(duration_text(185s), "3m05s");
  EXPECT_EQ(duration_text(3599.7s), "1h00m");
  EXPECT_EQ(duration_text(83min), "1h23m");
  EXPECT_EQ(duration_text(76h), "3d04h");
}

TEST(LineText, SaysEverythingInALogsColumns) {
  EXPECT_EQ(line_text(example(), 90),
            "step 840/2000 loss 2.1034 lr 5.4e-4 norm 0.61 41.2k tok/s MFU 38% exposed 3% ETA 3m10s");
  Progress alone = example();
  alone.exposed.reset();
  alone.mfu.reset();
  alone.left.reset();
  EXPECT_EQ(line_text(alone, 83), "step 840/2000 loss 2.1034 lr 5.4e-4 norm 0.61 41.2k tok/s");
}

TEST(LineText, LeavesOutWhatMattersLeast) {
  Progress late = example();
  late.slow = {3, 1.25, StepClass::kDataWait};
  EXPECT_EQ(line_text(late, 120), line_text(example(), 120) + " slow r3 1.25x (data_wait)");
  EXPECT_EQ(line_text(late, 87), line_text(example(), 87));
  EXPECT_EQ(line_text(late, 83), "step 840/2000 loss 2.1034 lr 5.4e-4 norm 0.61 41.2k tok/s exposed 3% ETA 3m10s");
  EXPECT_EQ(line_text(late, 40), "step 840/2000 loss 2.1034 ETA 3m10s");
  EXPECT_EQ(line_text(late, 5), "step ");
}

TEST(BarText, ShowsAllThatFits) {
  EXPECT_EQ(bar_text(example(), 160),
            "[===========>                ]  step 840/2000  loss 2.1034  lr 5.4e-4  norm 0.61  41.2k tok/s  MFU 38%  "
            "exposed 3%  "
            "elapsed 2m05s  ETA 3m10s  checkpoint at 1000");
  EXPECT_EQ(bar_text(example(), 99),
            "[=====>        ]  step 840/2000  loss 2.1034  lr 5.4e-4  norm 0.61  41.2k tok/s  MFU 38%  ETA 3m10s");
  EXPECT_EQ(bar_text(example(), 59), "[==>  ]  step 840/2000  loss 2.1034  41.2k tok/s  ETA 3m10s");
  EXPECT_EQ(bar_text(example(), 12), "step 840/200");
}

TEST(BarText, SaysWhatItDoesInPlaceOfTraining) {
  Progress busy = example();
  busy.doing = "evaluation";
  EXPECT_EQ(bar_text(busy, 59), "[======>        ]  step 840/2000  loss 2.1034  (evaluation)");
}

TEST(BarText, TellsACheckpointByTime) {
  Progress p = example();
  p.next_checkpoint = {.step = {}, .in = 700s};
  EXPECT_NE(bar_text(p, 160).find("checkpoint in 11m40s"), std::string::npos) << bar_text(p, 160);
}

// Whatever the numbers: a line that wraps cannot be drawn over.
TEST(BarText, NeverIsWiderThanItsColumns) {
  for (Progress p : {example(), Progress{}}) {
    for (const double value : {0.0, 1e-30, 0.5, 123456.789, 1e30, -5.0, std::numeric_limits<double>::quiet_NaN(),
                               std::numeric_limits<double>::infinity()}) {
      p.loss = p.learning_rate = p.grad_norm = p.tokens_per_s = value;
      p.mfu = p.exposed = value;
      for (const std::int64_t step : {std::int64_t{0}, std::int64_t{2000}, std::int64_t{1'000'000'000'000}}) {
        p.step = step;
        for (int columns = 1; columns < 200; ++columns) {
          ASSERT_LE(bar_text(p, columns).size(), static_cast<std::size_t>(columns));
          ASSERT_LE(line_text(p, columns).size(), static_cast<std::size_t>(columns));
        }
      }
    }
  }
}

TEST(BarText, IsFullAtTheEnd) {
  Progress p = example();
  p.step = p.steps;
  EXPECT_TRUE(bar_text(p, 99).starts_with("[========")) << bar_text(p, 99);
  EXPECT_EQ(bar_text(p, 99).find('>'), std::string::npos) << bar_text(p, 99);
}

}  // namespace
}  // namespace strake::launch
