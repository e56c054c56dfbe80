#include "launch/bench/kernel_figures.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <utility>

namespace strake::launch {
namespace {

using Operand = DeclaredOperation::Operand;

DeclaredOperation product(std::string name, Phase phase, std::int64_t rows, std::int64_t outs, std::int64_t ins) {
  const auto flops = 2.0 * static_cast<double>(rows * outs * ins);
  const auto elems = static_cast<double>(rows * outs + rows * ins + outs * ins);
  return {.name = std::move(name),
          .kind = "linear_forward",
          .phase = phase,
          .writes = {{DType::kBF16, {rows, outs}}},
          .reads = {{DType::kBF16, {rows, ins}}, {DType::kBF16, {outs, ins}}},
          .flops = flops,
          .bytes = 2 * elems};
}

DeclaredOperation pass(std::string name, std::string kind, Phase phase, std::int64_t elems) {
  return {.name = std::move(name),
          .kind = std::move(kind),
          .phase = phase,
          .writes = {{DType::kF32, {elems}}},
          .reads = {{DType::kF32, {elems}}},
          .flops = 0,
          .bytes = 8.0 * static_cast<double>(elems)};
}

RankStep step(double wall_ms, double forward_ms, double backward_ms) {
  RankStep out;
  out.wall_ms = wall_ms;
  out.class_ms[static_cast<std::size_t>(StepClass::kForward)] = forward_ms;
  out.class_ms[static_cast<std::size_t>(StepClass::kBackward)] = backward_ms;
  return out;
}

// 1e9 FLOP/s, 1e6 bytes/s, a cache of 1,000 bytes.
KernelJob kernel_job() {
  KernelJob out;
  out.device = "a device";
  out.rates = {.flops = 1e9,
               .flops_are_measured = false,
               .flops_name = "a rate",
               .memory = {.peak_bytes_per_s = 1e6, .copied_bytes_per_s = 0.5e6, .cache_bytes = 1000}};
  out.before = {step(100, 40, 50), step(104, 40, 50), step(102, 42, 52)};
  out.timed = {step(110, 50, 50), step(110, 50, 50), step(110, 50, 50)};
  out.after = {step(98, 38, 48), step(96, 40, 50), step(300, 140, 150)};
  return out;
}

TEST(KernelFigures, NamesShapes) {
  EXPECT_EQ(shape_of(product("fc", Phase::kForward, 64, 32, 16)), "bf16 64x32x16");
  DeclaredOperation weight{.name = "fc",
                           .kind = "linear_backward_weight",
                           .phase = Phase::kBackward,
                           .writes = {{DType::kF32, {32, 16}}, {DType::kF32, {32}}},
                           .reads = {{DType::kBF16, {64, 32}}, {DType::kBF16, {64, 16}}},
                           .flops = 2.0 * 64 * 32 * 16,
                           .bytes = 1};
  EXPECT_EQ(shape_of(weight), "bf16 32x16x64") << "what is summed over comes last";
  weight.flops *= 1.5;
  EXPECT_EQ(shape_of(weight), "bf16 64x32") << "no product of these: the largest operand";
  EXPECT_EQ(operands_of(weight), "f32[32, 16], f32[32] <- bf16[64, 32], bf16[64, 16]");
  EXPECT_EQ(shape_of({.name = "nothing", .kind = "wait", .writes = {}, .reads = {}}), "");
  EXPECT_EQ(place_of("h11.ln_1"), "h*.ln_*");
  EXPECT_EQ(place_of("loss to host"), "loss to host");
}

TEST(KernelFigures, GroupsEqualOperationsAndAddsTheirMedians) {
  TimedSteps steps;
  steps.operations = {product("h0.fc", Phase::kForward, 100, 50, 10), product("h1.fc", Phase::kForward, 100, 50, 10),
                      pass("h0.gelu", "gelu", Phase::kForward, 1000), product("h0.fc", Phase::kBackward, 100, 50, 20)};
  // The second product is disturbed once; a mark takes 1 ms of each.
  steps.times_ms = {{3, 4, 16, 11}, {3, 40, 17, 11}, {3, 6, 18, 11}};
  steps.mark_ms = 1;
  const KernelFigures figures = figures_of(kernel_job(), steps);

  ASSERT_EQ(figures.rows.size(), 3u);
  EXPECT_EQ(figures.rows[0].operation, "gelu") << "longest first";
  EXPECT_DOUBLE_EQ(figures.rows[0].step_ms, 16);
  EXPECT_DOUBLE_EQ(figures.rows[1].step_ms, 10);
  const KernelRow& row = figures.rows[2];
  EXPECT_EQ(row.shape, "bf16 100x50x10");
  EXPECT_EQ(row.places, std::vector<std::string>{"h*.fc"});
  EXPECT_EQ(row.calls, 2);
  EXPECT_DOUBLE_EQ(row.step_ms, (3 - 1) + (6 - 1)) << "medians, without marks";
  EXPECT_DOUBLE_EQ(row.call_us(), 3500);
  EXPECT_DOUBLE_EQ(*row.tflops(), 2 * 100'000 / 7e-3 / 1e12);
  EXPECT_DOUBLE_EQ(*row.gb_per_s(), 2 * 2 * 6500 / 7e-3 / 1e9);

  EXPECT_DOUBLE_EQ(figures.operations_ms, 16 + 10 + 7);
  EXPECT_DOUBLE_EQ(figures.phase_ms.at("forward"), 16 + 7);
  EXPECT_DOUBLE_EQ(figures.phase_ms.at("backward"), 10);
  EXPECT_DOUBLE_EQ(figures.step_ms, 101) << "of the steps on both sides";
  EXPECT_DOUBLE_EQ(figures.before_ms, 102);
  EXPECT_DOUBLE_EQ(figures.after_ms, 98);
  EXPECT_DOUBLE_EQ(figures.timed_ms, 110);
  EXPECT_DOUBLE_EQ(figures.rows[0].step_share, 16 / 101.0);
  EXPECT_DOUBLE_EQ(figures.covered_share, (3 + 6 + 18 + 11) / 100.0) << "median of 34, 71 and 38 %, marks included";
  EXPECT_DOUBLE_EQ(figures.mark_us, 1000);
}

TEST(KernelFigures, SaysWhatIsFasterThanTheFloor) {
  const auto above = [](const DeclaredOperation& operation, double time_ms, const KernelJob& measured) {
    const KernelFigures figures =
        figures_of(measured, {.operations = {operation}, .times_ms = {{time_ms}, {time_ms}, {time_ms}}, .mark_ms = 0});
    return std::pair(figures.rows[0].above_floor, figures.rows[0].bound_by_flops);
  };
  using Above = KernelRow::Above;
  // 2e6 FLOP: 2 ms; 10,600 bytes: 10.6 ms, of which a cache may spare 2.
  const DeclaredOperation by_bytes = product("fc", Phase::kForward, 50, 100, 2);
  EXPECT_EQ(above(by_bytes, 10.9, kernel_job()), std::pair(Above::kNone, false));
  EXPECT_EQ(above(by_bytes, 9, kernel_job()), std::pair(Above::kByCache, false));
  EXPECT_EQ(above(by_bytes, 8, kernel_job()), std::pair(Above::kByMistake, false));
  // 2e8 FLOP: 200 ms; 60,000 bytes: 60 ms.
  const DeclaredOperation by_flops = product("fc", Phase::kForward, 100, 100, 10'000);
  KernelJob fast = kernel_job();
  fast.rates.memory.peak_bytes_per_s = 1e12;
  EXPECT_EQ(above(by_flops, 201, fast), std::pair(Above::kNone, true));
  EXPECT_EQ(above(by_flops, 199, fast), std::pair(Above::kByMistake, true)) << "no cache computes";
  fast.rates.flops_are_measured = true;
  EXPECT_EQ(above(by_flops, 199, fast), std::pair(Above::kByMeasuredRate, true));
  KernelJob copied = kernel_job();
  copied.rates.memory.copied_bytes_per_s = copied.rates.memory.peak_bytes_per_s;
  EXPECT_EQ(above(by_bytes, 8, copied), std::pair(Above::kByMeasuredRate, false));

  KernelJob unknown = kernel_job();
  unknown.rates.flops = 0;
  unknown.rates.memory = {};
  const KernelFigures figures =
      figures_of(unknown, {.operations = {by_bytes}, .times_ms = {{1}, {1}, {1}}, .mark_ms = 2});
  EXPECT_EQ(figures.rows[0].step_ms, 0) << "never below nothing";
  EXPECT_EQ(figures.rows[0].floor_share(), std::nullopt);
  EXPECT_EQ(figures.rows[0].tflops(), std::nullopt);
  EXPECT_EQ(figures.rows[0].above_floor, Above::kNone);
}

TEST(KernelFigures, AreToldToPeopleAndPrograms) {
  TimedSteps steps;
  steps.operations = {product("h0.fc", Phase::kForward, 50, 100, 2), pass("norm", "norm", Phase::kOptimizer, 1000)};
  steps.times_ms = {{4, 20}, {4, 20}, {4, 20}};
  const KernelFigures figures = figures_of(kernel_job(), steps);
  const auto json = to_json(figures);
  EXPECT_EQ(json.at("operations").size(), 2u);
  const auto& row = json.at("operations").at(1);
  EXPECT_EQ(row.at("operation"), "linear_forward");
  EXPECT_EQ(row.at("above_floor"), "error");
  EXPECT_EQ(row.at("bound_by"), "bytes");
  EXPECT_DOUBLE_EQ(row.at("floor_share").get<double>(), 10.6 / 4);
  EXPECT_TRUE(json.at("operations").at(0).at("above_floor").is_null());
  EXPECT_TRUE(json.at("operations").at(0).at("tflops").is_null());
  EXPECT_DOUBLE_EQ(json.at("operations_share").get<double>(), 24 / 101.0);
  const std::string text = table(figures);
  for (const char* part : {"linear_forward", "bf16 50x100x2", "265.0!", "** error **", "24.000 ms, 23.8 % of a step",
                           "101.000 ms, median of 2 x 3 steps", "forward 4.000 of 40.000"}) {
    EXPECT_NE(text.find(part), std::string::npos) << "no '" << part << "' in:\n" << text;
  }
}

}  // namespace
}  // namespace strake::launch
