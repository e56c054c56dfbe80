// examples/plot_loss.py reads what MetricsFile writes. Python without its site packages: no matplotlib.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>
#include <limits>
#include <string>
#include <utility>

#include "launch/report/run_report.h"
#include "launch/run/metrics.h"
#include "tests/support/scratch_folder.h"

namespace strake::launch {
namespace {

class PlotLoss : public ::testing::Test {
 protected:
  PlotLoss() { files_.make_directories(run_); }

  void append(std::int64_t step, std::int64_t attempt, double loss) {
    StepMetrics metrics;
    metrics.step = step;
    metrics.attempt = attempt;
    metrics.loss = loss;
    MetricsFile(files_, run_ / "metrics.jsonl").append(metrics);
  }
  void append_evaluation(std::int64_t step, std::int64_t attempt, double loss) {
    MetricsFile(files_, run_ / "metrics.jsonl").append(EvalMetrics{step, attempt, loss, 64});
  }
  // What it prints on both streams, and its exit code.
  std::pair<std::string, int> plot(const std::string& arguments = "") { return plot(run_, arguments); }
  static std::pair<std::string, int> plot(const std::filesystem::path& run, const std::string& arguments) {
    const std::string command = "COLUMNS=31 " STRAKE_PYTHON3 " -I -S " STRAKE_SOURCE_FOLDER "/examples/plot_loss.py " +
                                shell_quote(run.string()) + " " + arguments + " 2>&1";
    std::FILE* pipe = ::popen(command.c_str(), "r");
    std::string text(1 << 16, '\0');
    text.resize(std::fread(text.data(), 1, text.size(), pipe));
    return {text, WEXITSTATUS(::pclose(pipe))};
  }

  test::ScratchFolder folder_;
  std::filesystem::path run_ = folder_.path() / "a run";
  PosixFiles files_;
};

// Steps 5 to 8 are done again by a second attempt; a line is torn; a loss is not finite.
TEST_F(PlotLoss, DrawsTheStepsAsTheyCountInTheEnd) {
  for (int step = 1; step <= 8; ++step) append(step, 1, 9);
  append_evaluation(8, 1, 1);
  for (int step = 1; step <= 4; ++step) append(step, 1, 6 - step);
  for (int step = 5; step <= 10; ++step) append(step, 2, 1);
  append(9, 2, std::numeric_limits<double>::quiet_NaN());
  append_evaluation(4, 1, 3);
  append_evaluation(8, 2, 2);
  append_evaluation(10, 2, 2.5);
  {
    const auto file = files_.open(run_ / "metrics.jsonl", OpenMode::kAppend);
    file->append("{\"step\": 11, \"atte");
  }
  EXPECT_EQ(plot(), std::pair(std::string(R"(  5.000 |.
        |
        |
        |
        |
  4.000 |  .
        |
        |
        |
        |
  3.000 |    .  o
        |
        |                    o
        |
        |
  2.000 |       .        o
        |
        |
        |
        |
  1.000 |         . . .  .   .
        +---------^-----------
         1                  10
loss (.) 5.0000 in step 1, 1.0000 in step 10
held-out loss (o) 2.5000 after step 10, best 2.0000 after step 8
resumed (^) before step 5
)"),
                              0));
}

// The first of the losses is compared with all others: it must not be the one that nothing is below.
TEST_F(PlotLoss, TheBestHeldOutLossIsFinite) {
  append(1, 1, 3);
  append(2, 1, 2);
  append_evaluation(1, 1, std::numeric_limits<double>::quiet_NaN());
  std::string text = plot().first;
  EXPECT_NE(text.find("held-out loss (o) nan after step 1\n"), std::string::npos) << text;
  append_evaluation(2, 1, 2.5);
  text = plot().first;
  EXPECT_NE(text.find("held-out loss (o) 2.5000 after step 2, best 2.5000 after step 2\n"), std::string::npos) << text;
}

TEST_F(PlotLoss, PassesOverLinesOfNoRun) {
  append(1, 1, 3);
  const auto before = plot();
  for (const char* line :
       {"7\n", "null\n", "[\"loss\", \"step\"]\n", "\"loss\"\n", "{}\n", "{\"loss\": 1}\n", "{\"step\": 9}\n"}) {
    files_.open(run_ / "metrics.jsonl", OpenMode::kAppend)->append(line);
    EXPECT_EQ(plot(), before) << line;
  }
}

TEST_F(PlotLoss, TakesThePathOfTheMetricsThemselves) {
  append(1, 1, 3);
  EXPECT_EQ(plot(run_ / "metrics.jsonl", ""), plot());
  EXPECT_EQ(plot().second, 0);
}

TEST_F(PlotLoss, SaysWhatIsMissing) {
  const auto [nothing, no_run] = plot();
  EXPECT_NE(nothing.find("a run: no run folder with a metrics.jsonl"), std::string::npos) << nothing;
  EXPECT_EQ(no_run, 1);
  append(1, 1, 2.0);
  const auto [text, no_picture] = plot("-o " + shell_quote((run_ / "loss.png").string()));
  EXPECT_EQ(text.substr(0, text.find('\n')), "matplotlib is not installed: the curve as text instead");
  EXPECT_NE(text.find("loss (.) 2.0000 in step 1"), std::string::npos) << text;
  EXPECT_EQ(no_picture, 1);
  EXPECT_FALSE(files_.exists(run_ / "loss.png"));
}

}  // namespace
}  // namespace strake::launch
