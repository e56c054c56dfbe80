#include "launch/report/live_view.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <ctime>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

namespace strake::launch {
namespace {

using namespace std::chrono_literals;

constexpr std::string_view kClear = "\r\x1b[K";

// A view with its writes, its width and its time in the test's hands.
class Watched {
 public:
  explicit Watched(ViewStyle style, Logger log = Logger())
      : view(style, log,
             {.write = [this](std::string_view text) { writes.emplace_back(text); },
              .columns = [this] { return columns; },
              .now = [this] { return now; }}) {
    ::setenv("TZ", "UTC0", 1);
    ::tzset();
  }

  void start(std::int64_t every = 10, int ranks = 1) {
    StartFacts facts;
    facts.run_dir = "runs/a";
    facts.ranks = ranks;
    facts.global_batch = 4;
    facts.tokens_per_step = 1000;
    facts.last_step = facts.steps = 100;
    facts.train_tokens = "train.bin";
    facts.sequences = 82;  // the second epoch begins in step 21
    view.start(facts, {.last_step = 100}, every);
    writes.clear();
  }
  void step(std::int64_t step, std::vector<RankStep> ranks = {RankStep{.wall_ms = 500}}) {
    view.step({step, 2.5, 0.5}, 1e-3, ranks, {.step = 50, .in = {}});
  }
  void pass(std::chrono::milliseconds time) {
    now.time += time;
    now.steady += time;
  }
  std::string all() const {
    std::string out;
    for (const std::string& text : writes) out += text;
    return out;
  }

  std::vector<std::string> writes;
  int columns = 80;
  LiveView::Instant now{std::chrono::system_clock::from_time_t(1'700'000'000), {}};  // 2023-11-14 22:13:20
  LiveView view;
};

TEST(ViewStyle, IsABarWhereStandardErrorIsATerminal) {
  const Screen terminal{.terminal = true, .columns = 80, .plain = false};
  EXPECT_EQ(view_style(LogFormat::kAuto, terminal), ViewStyle::kBar);
  EXPECT_EQ(view_style(LogFormat::kAuto, {.terminal = false, .columns = 80, .plain = false}), ViewStyle::kLines);
  EXPECT_EQ(view_style(LogFormat::kAuto, {.terminal = true, .columns = 0, .plain = false}), ViewStyle::kLines);
  EXPECT_EQ(view_style(LogFormat::kAuto, {.terminal = true, .columns = 80, .plain = true}), ViewStyle::kLines);
  EXPECT_EQ(view_style(LogFormat::kBar, {}), ViewStyle::kBar);
  EXPECT_EQ(view_style(LogFormat::kLines, terminal), ViewStyle::kLines);
  EXPECT_EQ(view_style(LogFormat::kJson, terminal), ViewStyle::kJson);
}

TEST(LiveBar, IsDrawnInPlaceAtMostTenTimesASecond) {
  Watched watched(ViewStyle::kBar);
  watched.start();
  for (int step = 1; step <= 40; ++step) {
    watched.pass(30ms);
    watched.step(step, {RankStep{.wall_ms = 30}});
  }
  std::size_t drawings = 0;
  for (const std::string& text : watched.writes) {
    drawings += text.find('[') != std::string::npos ? 1 : 0;
    EXPECT_TRUE(text.starts_with(kClear)) << text;
    EXPECT_TRUE(text.ends_with('\r')) << text;
  }
  EXPECT_GE(drawings, 8u);
  EXPECT_LE(drawings, 13u);
}

TEST(LiveBar, FollowsTheWidthOfTheTerminal) {
  Watched watched(ViewStyle::kBar);
  watched.start();
  for (const int columns : {40, 60, 120, 20}) {
    watched.columns = columns;
    watched.pass(1s);
    watched.step(1);
    const std::string& text = watched.writes.back();
    EXPECT_LE(text.size() - kClear.size() - 1, static_cast<std::size_t>(columns - 1)) << text;
  }
  watched.columns = 0;  // nobody knows
  watched.pass(1s);
  watched.step(2);
  EXPECT_EQ(watched.writes.back().size(), kClear.size() + 99 + 1);
}

TEST(LiveBar, MessagesComeAboveIt) {
  Watched watched(ViewStyle::kBar, Logger(0, 2));
  watched.start(10, 2);
  watched.pass(1s);
  watched.step(1, {{.wall_ms = 500}, {.wall_ms = 500}});
  const std::string bar = watched.writes.back().substr(kClear.size());
  watched.writes.clear();
  const Logger log = Logger(0, 2).to(watched.view);
  log.warning("the disk\nis full");
  ASSERT_EQ(watched.writes.size(), 1u);
  EXPECT_EQ(watched.writes[0],
            std::string(kClear) + "strake: [rank 0] warning: the disk\nstrake: [rank 0] warning: is full\n" + bar);
}

// Its line may hold the bar of rank 0, with the cursor at its beginning.
TEST(LiveBar, AMessageOfAnotherRankClearsItsLine) {
  Watched other(ViewStyle::kBar, Logger(1, 2));
  other.view.start({}, {}, 10);
  other.step(1);
  other.view.evaluated({1, 2.0}, 10, 1s);
  other.view.saved(1, {.returned_s = 1, .snapshot_s = 1, .durable_s = 1, .bytes = 10}, 0s);
  other.view.end({}, StepBreakdown(2));
  EXPECT_EQ(other.all(), "") << "progress is for rank 0 to tell";
  Logger(1, 2).to(other.view).warning("late");
  EXPECT_EQ(other.all(), std::string(kClear) + "strake: [rank 1] warning: late\n");
}

TEST(LiveBar, SaysWhatElseItDoes) {
  Watched watched(ViewStyle::kBar);
  watched.start();
  watched.pass(1s);
  watched.step(1);
  watched.view.doing("evaluation");
  EXPECT_NE(watched.writes.back().find("(evaluation)"), std::string::npos);
  watched.view.evaluated({1, 2.0}, 4096, 60ms);
  EXPECT_TRUE(watched.writes.back().starts_with(std::string(kClear) +
                                                "strake: step 1: held-out loss 2.0000 nats a token, over 4.10k tokens "
                                                "in 60ms\n["))
      << watched.writes.back();
  EXPECT_EQ(watched.writes.back().find("(evaluation)"), std::string::npos);
}

TEST(LiveBar, StaysAboveWhatComesBehindIt) {
  Watched watched(ViewStyle::kBar);
  watched.start();
  watched.pass(1s);
  watched.step(1);
  watched.writes.clear();
  watched.view.close();
  EXPECT_EQ(watched.all(), "\n");
  watched.view.close();
  watched.pass(1s);
  watched.step(2);
  EXPECT_EQ(watched.all(), "\n") << "nothing is drawn behind an error's words";
}

TEST(LiveBar, GivesWayToTheEnd) {
  Watched watched(ViewStyle::kBar);
  watched.start();
  watched.pass(1s);
  watched.step(1);
  watched.writes.clear();
  EndFacts facts;
  facts.run_dir = "runs/a";
  watched.view.end(facts, StepBreakdown(1));
  EXPECT_TRUE(watched.all().starts_with(std::string(kClear) + "strake: done")) << watched.all();
  EXPECT_TRUE(watched.all().ends_with('\n'));
}

TEST(LiveLines, HaveTheirTimeAndTheDateOnceADay) {
  Watched watched(ViewStyle::kLines);
  watched.start();
  watched.step(1);
  watched.pass(1s);
  for (int step = 2; step <= 20; ++step) watched.step(step);
  watched.pass(2h);
  Logger().to(watched.view).info("a new day");
  Logger().to(watched.view).warning("and a warning");
  EXPECT_EQ(watched.all(),
            "strake: 22:13:20 step 1/100 loss 2.5000 lr 1.0e-3 norm 0.50 2.00k tok/s ETA 50s\n"
            "strake: 22:13:21 step 10/100 loss 2.5000 lr 1.0e-3 norm 0.50 2.00k tok/s ETA 45s\n"
            "strake: 22:13:21 step 20/100 loss 2.5000 lr 1.0e-3 norm 0.50 2.00k tok/s ETA 40s\n"
            "strake: 2023-11-15 00:13:21 a new day\n"
            "strake: 00:13:21 warning: and a warning\n");
}

TEST(LiveLines, AreAtMostAHundredColumns) {
  Watched watched(ViewStyle::kLines, Logger(0, 2));
  StartFacts facts;
  facts.ranks = 2;
  facts.global_batch = facts.sequences = 4;
  facts.tokens_per_step = 123'456'789;
  facts.last_step = facts.steps = 123'456'789;
  facts.peak_flops = facts.flops_per_token = 1e9;
  watched.view.start(facts, {.last_step = facts.last_step}, 1);
  watched.writes.clear();
  for (std::int64_t step = 100'000'000; step < 100'000'010; ++step) {
    watched.step(step, {{.wall_ms = 12345}, {.wall_ms = 23456, .class_ms = {23456}}});
  }
  std::istringstream text(watched.all());
  std::size_t lines = 0;
  for (std::string line; std::getline(text, line); ++lines) EXPECT_LE(line.size(), 100u) << line;
  EXPECT_GE(lines, 10u);
}

TEST(LiveView, SaysWhenASecondEpochBegins) {
  Watched watched(ViewStyle::kLines);
  watched.start(100);
  for (int step = 2; step <= 22; ++step) {
    watched.step(step);
    EXPECT_EQ(watched.all().find("epoch 2 begins") != std::string::npos, step >= 21) << step << watched.all();
  }
}

TEST(LiveView, SaysWhatACheckpointHeldUp) {
  Watched watched(ViewStyle::kLines);
  watched.start();
  watched.view.saved(1, {.returned_s = 0.02, .snapshot_s = 0.05, .durable_s = 0.25, .bytes = 1'000'000}, 10ms);
  EXPECT_NE(watched.all().find("step 1: checkpoint, 1.0 MB a rank, durable after 250ms; training went on after 30ms\n"),
            std::string::npos)
      << watched.all();
  watched.writes.clear();
  watched.view.saved(2, {.returned_s = 0.25, .snapshot_s = 0.05, .durable_s = 0.25, .bytes = 1'000'000}, 0ms);
  EXPECT_NE(watched.all().find("durable after 250ms\n"), std::string::npos) << watched.all();
}

TEST(LiveView, TellsNothingWhereTheLevelIsHigher) {
  Watched quiet(ViewStyle::kBar, Logger(0, 1, LogLevel::kWarning));
  quiet.start();
  quiet.step(1);
  quiet.view.end({}, StepBreakdown(1));
  EXPECT_EQ(quiet.all(), "");
}

// Every line alone is an object with its event and time (docs/formats.md).
TEST(LiveJson, IsAnObjectALine) {
  Watched watched(ViewStyle::kJson, Logger(0, 2));
  watched.start(10, 2);
  RankStep late{.wall_ms = 1000, .class_ms = {}};
  late.class_ms[static_cast<std::size_t>(StepClass::kExposedComm)] = 250;
  for (int step = 1; step <= 10; ++step) watched.step(step, {late, late});
  watched.view.evaluated({10, 2.25}, 4096, 500ms);
  watched.view.saved(10, {.returned_s = 0.02, .snapshot_s = 0.05, .durable_s = 0.25, .bytes = 1'000'000}, 10ms);
  Logger(0, 2).to(watched.view).warning("a \"b\"\nc");
  EndFacts facts;
  facts.run_dir = "runs/a";
  facts.steps = 100;
  facts.result.steps_done = 10;
  facts.result.last_held_out = HeldOut{10, 2.25};
  watched.view.end(facts, StepBreakdown(2));

  std::vector<nlohmann::json> events;
  std::istringstream text(watched.all());
  for (std::string line; std::getline(text, line);) events.push_back(nlohmann::json::parse(line));
  ASSERT_EQ(events.size(), 6u);
  for (const auto& event : events) EXPECT_EQ(event.at("time"), "2023-11-14T22:13:20.000Z");
  EXPECT_EQ(events[0].at("event"), "step");
  EXPECT_EQ(events[0].at("step"), 1);
  EXPECT_EQ(events[1].at("step"), 10);
  EXPECT_EQ(events[1].at("loss"), 2.5);
  EXPECT_NEAR(events[1].at("tokens_per_s").get<double>(), 1000, 1e-6);
  EXPECT_NEAR(events[1].at("exposed").get<double>(), 0.25, 1e-9);
  EXPECT_NEAR(events[1].at("eta_s").get<double>(), 90, 1e-6);
  EXPECT_EQ(events[1].at("next_checkpoint_step"), 50);
  EXPECT_TRUE(events[1].at("mfu").is_null());
  EXPECT_EQ(events[2].at("event"), "eval");
  EXPECT_EQ(events[2].at("val_tokens"), 4096);
  EXPECT_EQ(events[3].at("event"), "checkpoint");
  EXPECT_EQ(events[3].at("bytes_a_rank"), 1'000'000);
  EXPECT_EQ(events[3].at("seconds"), 0.25);
  EXPECT_EQ(events[3].at("returned_s"), 0.02);
  EXPECT_EQ(events[3].at("snapshot_s"), 0.05);
  EXPECT_EQ(events[3].at("waited_s"), 0.01);
  EXPECT_EQ(events[4].at("event"), "message");
  EXPECT_EQ(events[4].at("level"), "warning");
  EXPECT_EQ(events[4].at("text"), "a \"b\"\nc");
  EXPECT_EQ(events[5].at("event"), "end");
  EXPECT_EQ(events[5].at("held_out").at("loss"), 2.25);
  EXPECT_TRUE(events[5].at("best_held_out").is_null());
}

TEST(LiveJson, AGapIsAnObjectToo) {
  EXPECT_EQ(nlohmann::json::parse(LiveView::gap_text(ViewStyle::kJson, 3)).at("dropped_lines"), 3);
  EXPECT_EQ(LiveView::gap_text(ViewStyle::kLines, 1),
            "strake: warning: 1 line could not be written here and was dropped\n");
}

}  // namespace
}  // namespace strake::launch
