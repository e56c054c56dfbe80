// `strake bench kernels`, the real program: rows of what a step is made of, whose times lie within the step's.

#include <gtest/gtest.h>

#include <csignal>
#include <cstdint>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "runtime/base/error.h"
#include "tests/integration/bench_program.h"

namespace strake::test {
namespace {

using Json = nlohmann::json;

class BenchKernels : public BenchProgram {
 protected:
  BenchKernels() : BenchProgram("kernels") {}
  std::filesystem::path write(const std::string& name, const std::string& text) const {
    const std::filesystem::path path = job_.folder() / name;
    std::ofstream(path) << text;
    return path;
  }
};

TEST_P(BenchKernels, TimesEveryOperationOfAStep) {
  const ProgramEnd end = bench({"--warmup", "2", "--steps", "6", "--json"});
  ASSERT_EQ(end.exit_code, 0) << end.output;
  const Json json = parse(end);
  EXPECT_EQ(json.at("format"), "strake-bench-kernels-1");
  EXPECT_EQ(json.at("warmup"), 2);
  EXPECT_EQ(json.at("steps"), 6);
  EXPECT_EQ(json.at("ranks"), std::max(1, ranks()));
  EXPECT_EQ(json.at("config").at("train").at("steps"), ProgramJob::kSteps) << "the config is the user's";
  for (const char* which : {"median", "before", "after", "timed"}) EXPECT_GT(json.at("step_ms").at(which), 0) << which;
  EXPECT_TRUE(json.at("gpu").is_null());
  EXPECT_TRUE(json.at("comparison").is_null());
  EXPECT_GT(json.at("rates").at("flops"), 0);
  EXPECT_GT(json.at("rates").at("memory_bytes_per_s"), 0);

  // What the model is made of: two layers, as many micro-batches as 12 sequences make on these ranks.
  const std::int64_t micro_batches = ranks() == 2 ? 2 : 4;
  double sum_ms = 0, sum_floor_us = 0;
  std::map<std::string, std::int64_t> calls;
  std::map<std::string, double> flops;
  std::set<std::pair<std::string, std::string>> rows;
  for (const Json& row : json.at("operations")) {
    const std::string operation = row.at("operation");
    EXPECT_TRUE(rows.emplace(operation, row.at("operands").get<std::string>()).second) << "twice: " << row;
    EXPECT_DOUBLE_EQ(row.at("us").get<double>() * row.at("calls").get<double>(), 1e3 * row.at("step_ms").get<double>());
    EXPECT_DOUBLE_EQ(row.at("step_share").get<double>(),
                     row.at("step_ms").get<double>() / json.at("step_ms").at("median").get<double>());
    EXPECT_FALSE(row.at("places").empty());
    calls[operation] += row.at("calls").get<std::int64_t>();
    flops[operation] += row.at("flops").get<double>() * row.at("calls").get<double>();
    sum_ms += row.at("step_ms").get<double>();
    sum_floor_us += row.at("floor_us").get<double>() * row.at("calls").get<double>();
  }
  EXPECT_EQ(calls.at("attention_forward"), 2 * micro_batches);
  EXPECT_EQ(calls.at("attention_backward"), 2 * micro_batches);
  EXPECT_EQ(calls.at("cross_entropy_forward_backward"), micro_batches);
  EXPECT_EQ(calls.at("linear_forward"), (4 * 2 + 1) * micro_batches) << "four products a layer, and the head";
  EXPECT_DOUBLE_EQ(flops.at("linear_backward_input"), flops.at("linear_forward"));
  EXPECT_DOUBLE_EQ(flops.at("linear_backward_weight"), flops.at("linear_forward"));
  EXPECT_EQ(calls.at("gradient_norm"), 1);
  EXPECT_NEAR(json.at("operations_ms").get<double>(), sum_ms, 1e-9 * sum_ms);
  EXPECT_NEAR(json.at("floor_ms").get<double>(), sum_floor_us / 1e3, 1e-9 * sum_floor_us);
  double phases_ms = 0;
  for (const auto& [phase, phase_ms] : json.at("phases_ms").items()) phases_ms += phase_ms.get<double>();
  EXPECT_NEAR(phases_ms, sum_ms, 1e-9 * sum_ms);

  // Operations lie within the classes of the steps they were timed in, end to end but for marks and gaps: what takes
  // the core away from a rank meanwhile is in both.
  EXPECT_LE(json.at("covered_share"), 1.0);
  EXPECT_GE(json.at("covered_share"), 0.5);
  EXPECT_GT(sum_ms, 0);
  EXPECT_TRUE(leftovers().empty()) << leftovers().front();
}

TEST_P(BenchKernels, ComparesWithAnEarlierOutput) {
  const ProgramEnd first = bench({"--warmup", "1", "--steps", "2", "--json"});
  ASSERT_EQ(first.exit_code, 0) << first.output;
  Json earlier = parse(first);
  const std::string path = write("before.json", first.output).string();
  const ProgramEnd end = bench({"--warmup", "1", "--steps", "2", "--json", "--against", path});
  ASSERT_EQ(end.exit_code, 0) << end.output;
  const Json comparison = parse(end).at("comparison");
  EXPECT_EQ(comparison.at("against"), path);
  EXPECT_EQ(comparison.at("same_config"), true);
  EXPECT_EQ(comparison.at("same_device"), true);
  EXPECT_DOUBLE_EQ(comparison.at("earlier_operations_ms").get<double>(), earlier.at("operations_ms").get<double>());
  double difference_ms = -1e300, sum_ms = 0;
  for (const Json& row : comparison.at("operations")) {
    EXPECT_EQ(row.at("calls"), row.at("earlier_calls"));
    EXPECT_GE(row.at("difference_ms"), difference_ms) << "sorted";
    difference_ms = row.at("difference_ms");
    sum_ms += difference_ms;
  }
  EXPECT_NEAR(sum_ms, comparison.at("operations_difference_ms").get<double>(), 1e-6);

  // Another config has other shapes: nothing is compared with what it is not.
  const ProgramEnd other = bench({"--warmup", "1", "--steps", "1", "--against", path, "model.channels=32"});
  ASSERT_EQ(other.exit_code, 0) << other.output;
  for (const char* part : {"against ", "of another config", "gone", "new", "sum of operations", "step as it is"}) {
    EXPECT_NE(other.output.find(part), std::string::npos) << "no '" << part << "' in:\n" << other.output;
  }
}

TEST_P(BenchKernels, TalksToPeople) {
  const ProgramEnd end = bench({"--warmup", "1", "--steps", "2"});
  ASSERT_EQ(end.exit_code, 0) << end.output;
  for (const char* part : {"bench kernels: ", "operation ", "linear_forward", "h.*.mlp.fc", "sum ",
                           "median of 2 x 2 steps", "us a mark", "floor of", "config hash"}) {
    EXPECT_NE(end.output.find(part), std::string::npos) << "no '" << part << "' in:\n" << end.output;
  }
  EXPECT_TRUE(leftovers().empty()) << leftovers().front();
}

TEST_P(BenchKernels, WrongInputIsReportedOnce) {
  const std::string of_steps = write("step.json", R"({"format": "strake-bench-step-1"})").string();
  const std::string torn = write("torn.json", R"({"format": "strake-bench-kernels-1", "dev)").string();
  const struct {
    std::vector<std::string> arguments;
    std::vector<std::string> parts;
  } cases[] = {
      {{"trian.steps=4"}, {"trian.steps", "train.steps"}},
      {{"--against", of_steps}, {"--against", "step.json", "strake bench kernels --json"}},
      {{"--against", torn}, {"--against", "torn.json"}},
      {{"--against", "/nowhere.json"}, {"--against", "/nowhere.json"}},
      {{"checkpoint.every=1"}, {"bench kernels", "checkpoint"}},
      {{"eval.every=1", "data.val=" + job_.job().val_tokens().string()}, {"bench kernels", "eval"}},
  };
  for (const auto& [arguments, parts] : cases) {
    const ProgramEnd end = bench(arguments);
    EXPECT_FALSE(end.hung);
    EXPECT_EQ(end.exit_code, static_cast<int>(ExitCode::kConfig)) << end.output;
    ASSERT_EQ(end.errors().size(), 1u) << end.output;
    for (const std::string& part : parts) EXPECT_NE(end.errors()[0].find(part), std::string::npos) << end.errors()[0];
    EXPECT_TRUE(leftovers().empty()) << leftovers().front();
  }
}

TEST_P(BenchKernels, StoppedItLeavesNothingBehind) {
  std::vector<std::string> arguments{
      "bench",   "kernels", job_.config_path().string(), "run.dir=" + job_.run_folder("run").string(),
      "--steps", "1000000"};
  StrakeProgram program(GetParam(), arguments, job_.folder());
  while (program.running() && leftovers().empty()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  program.send(SIGUSR1);
  const ProgramEnd end = program.wait();
  EXPECT_EQ(end.exit_code, static_cast<int>(ExitCode::kInterrupted)) << end.output;
  EXPECT_TRUE(leftovers().empty()) << leftovers().front();
}

INSTANTIATE_TEST_SUITE_P(Ranks, BenchKernels, testing::Values(0, 2), ranks_name);

}  // namespace
}  // namespace strake::test
