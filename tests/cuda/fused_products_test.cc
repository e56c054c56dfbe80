// What is made along with a product: in every way that cuBLASLt has for it, against the CPU device; and which way is
// taken.
#include "kernels/cuda/fused_products.h"

#include <algorithm>
#include <map>
#include <string>
#include <tuple>

#include "kernels/matmul.h"
#include "tests/cuda/two_devices.h"

namespace strake::test {
namespace {

using kernels::Accumulate;
using kernels::WeightLayout;
using Choices = std::map<std::string, std::string>;

constexpr const char* kWay = "way of ";
constexpr const char* kEpilogues[] = {"none", "bias", "d_bias", "gelu", "bias gelu", "d_gelu", "d_gelu d_bias"};
constexpr Types kBF16 = {DType::kBF16, DType::kBF16}, kBF16InF32 = {DType::kBF16, DType::kF32},
                kF32 = {DType::kF32, DType::kF32};

Argument value(std::vector<std::int64_t> shape, std::uint32_t seed) {
  Argument argument{.shape = std::move(shape)};
  argument.values = normal(argument.elems(), seed);
  return argument;
}
Argument output(std::vector<std::int64_t> shape, Role role = Role::kValue) {
  return {.shape = std::move(shape), .role = role};
}
Argument gradient(std::vector<std::int64_t> shape, std::uint32_t seed) {
  Argument argument = value(std::move(shape), seed);
  argument.role = Role::kGradient;
  return argument;
}

Choices all_ways(const Choices& choices, const std::string& epilogue) {
  Choices changed = choices;
  for (auto& [key, value] : changed) {
    if (key.starts_with(kWay)) value = epilogue;
  }
  return changed;
}

// The names of the ways that there are on this GPU, each of which gives what the CPU device gives.
std::vector<std::string> ways_as_on_cpu(Types types, const Arguments& unrounded,
                                        const std::vector<std::size_t>& outputs, const Launch& launch) {
  const Arguments arguments = rounded(types, unrounded);
  const auto cpu = make_cpu_device();
  const auto reference = run_on(*cpu, kF32, arguments, launch);
  const auto cuda = make_cuda_device(0, kernels::cuda::make_kernels(/*deterministic=*/false));
  run_on(*cuda, types, arguments, launch);  // plans
  KernelState& kernels = *cuda->kernel_state();
  const Choices before = kernels.choices();
  std::vector<std::string> ways;
  for (const std::string epilogue : kEpilogues) {
    const Choices changed = all_ways(before, epilogue);
    kernels.apply(changed);
    if (kernels.choices() != changed) continue;  // no way to make this
    ways.push_back(epilogue);
    SCOPED_TRACE("with the product's epilogue " + epilogue);
    const auto out = run_on(*cuda, types, arguments, launch);
    for (const std::size_t index : outputs) {
      EXPECT_LE(relative_error(out[index], reference[index]), types.value == DType::kBF16 ? 1e-2 : 1e-5)
          << "argument " << index;
    }
  }
  return ways;
}

bool has(const std::vector<std::string>& ways, const std::string& way) {
  return std::ranges::find(ways, way) != ways.end();
}

std::vector<std::int64_t> fused_weight_shape(WeightLayout layout, std::int64_t outs, std::int64_t ins) {
  return layout == WeightLayout::kOutIn ? std::vector{outs, ins} : std::vector{ins, outs};
}

class FusedProducts : public testing::Test {
 protected:
  void SetUp() override { STRAKE_NEEDS_GPU(); }
};

TEST_F(FusedProducts, GeluBehindAProduct) {
  for (const auto& [m, k, n] : {std::tuple{256, 64, 192}, std::tuple{1024, 768, 3072}}) {
    for (const WeightLayout layout : {WeightLayout::kOutIn, WeightLayout::kInOut}) {
      const Arguments arguments{output({m, n}), output({m, n}), value({m, k}, 1),
                                value(fused_weight_shape(layout, n, k), 2), value({n}, 3)};
      const auto with_bias = [layout](Stream& stream, const std::vector<Tensor>& t) {
        kernels::linear_forward(stream, {"test"}, {t[0], t[2], t[3], t[4], layout, t[1]});
      };
      const auto without = [layout](Stream& stream, const std::vector<Tensor>& t) {
        kernels::linear_forward(stream, {"test"}, {t[0], t[2], t[3], Tensor(), layout, t[1]});
      };
      const auto ways = ways_as_on_cpu(kBF16, arguments, {0, 1}, with_bias);
      EXPECT_TRUE(has(ways, "bias") && has(ways, "bias gelu")) << testing::PrintToString(ways);
      const auto ways_without = ways_as_on_cpu(kBF16, arguments, {0, 1}, without);
      EXPECT_TRUE(has(ways_without, "none") && has(ways_without, "gelu")) << testing::PrintToString(ways_without);
      // In f32, and where bits must repeat: the product, then GELU.
      expect_as_on_cpu(kF32, arguments, {0, 1}, with_bias);
      expect_as_on_cpu(kF32, arguments, {0, 1}, without);
      expect_as_on_cpu(kBF16, arguments, {0, 1}, with_bias);
    }
  }
}

TEST_F(FusedProducts, GradientOfGeluAndOfItsBias) {
  for (const auto& [m, k, n] : {std::tuple{256, 64, 192}, std::tuple{1000, 3072, 768}}) {
    for (const WeightLayout layout : {WeightLayout::kOutIn, WeightLayout::kInOut}) {
      const auto arguments = [&, m = m, k = k, n = n](const Argument& dbias) {
        return Arguments{output({m, k}), dbias, value({m, n}, 1), value(fused_weight_shape(layout, n, k), 2),
                         value({m, k}, 3)};
      };
      const auto of = [layout](Accumulate accumulate, bool bias) {
        return [=](Stream& stream, const std::vector<Tensor>& t) {
          kernels::linear_backward_input(stream, {"test"},
                                         {t[0], t[2], t[3], layout, t[4], bias ? t[1] : Tensor(), accumulate});
        };
      };
      const Arguments overwritten = arguments(output({k}, Role::kGradient)), added = arguments(gradient({k}, 4));
      const auto ways = ways_as_on_cpu(kBF16, overwritten, {0, 1}, of(Accumulate::kOverwrite, true));
      EXPECT_TRUE(has(ways, "none") && has(ways, "d_gelu")) << testing::PrintToString(ways);
      RecordProperty("ways", testing::PrintToString(ways));
      // No epilogue adds, or writes another type.
      for (const Types types : {kBF16, kBF16InF32}) {
        const auto adding = ways_as_on_cpu(types, added, {0, 1}, of(Accumulate::kAdd, true));
        EXPECT_TRUE(has(adding, "none") && has(adding, "d_gelu") && !has(adding, "d_gelu d_bias"))
            << testing::PrintToString(adding);
      }
      const auto alone = ways_as_on_cpu(kBF16, overwritten, {0}, of(Accumulate::kOverwrite, false));
      EXPECT_TRUE(has(alone, "none") && has(alone, "d_gelu")) << testing::PrintToString(alone);
      for (const Types types : {kBF16, kBF16InF32, kF32}) {
        expect_as_on_cpu(types, overwritten, {0, 1}, of(Accumulate::kOverwrite, true));
        expect_as_on_cpu(types, added, {0, 1}, of(Accumulate::kAdd, true));
        expect_as_on_cpu(types, overwritten, {0}, of(Accumulate::kOverwrite, false));
      }
    }
  }
}

TEST_F(FusedProducts, GradientOfABias) {
  for (const WeightLayout layout : {WeightLayout::kOutIn, WeightLayout::kInOut}) {
    const auto ways = ways_as_on_cpu(
        kBF16,
        {output(fused_weight_shape(layout, 768, 256), Role::kGradient), output({768}, Role::kGradient),
         value({1000, 768}, 3), value({1000, 256}, 4)},
        {0, 1}, [layout](Stream& stream, const std::vector<Tensor>& t) {
          kernels::linear_backward_weight(stream, {"test"}, {t[0], t[1], t[2], t[3], Accumulate::kOverwrite, layout});
        });
    EXPECT_TRUE(has(ways, "none") && has(ways, "d_bias")) << testing::PrintToString(ways);
  }
}

// A product with GELU, met by planning.
void plan_one(Device& device) {
  Arena memory("arguments", MemoryKind::kDevice);
  PlanDevice plan(device);
  const auto tensor = [&](std::initializer_list<std::int64_t> shape) {
    return Tensor::reserve(memory, DType::kBF16, shape);
  };
  const Tensor y = tensor({512, 768}), activated = tensor({512, 768}), x = tensor({512, 256});
  const Tensor weight = tensor({768, 256}), bias = tensor({768});
  const auto stream = plan.make_stream("compute", StreamPriority::kNormal);
  kernels::linear_forward(*stream, {"test"}, {y, x, weight, bias, WeightLayout::kOutIn, activated});
}

std::string way_of(const Choices& choices) {
  for (const auto& [key, value] : choices) {
    if (key.starts_with(kWay)) return value;
  }
  return "";
}

TEST_F(FusedProducts, WaysAreTimedOnceAndTakenAgain) {
  const auto device = make_cuda_device(0, kernels::cuda::make_kernels(/*deterministic=*/false));
  plan_one(*device);
  KernelState& kernels = *device->kernel_state();
  EXPECT_EQ(way_of(kernels.choices()), "bias");  // until they are timed
  EXPECT_EQ(kernels.tune().size(), 3u);          // two products, and which of them
  const Choices chosen = kernels.choices();

  for (const char* const way : {"bias", "bias gelu"}) {
    const Choices recorded = all_ways(chosen, way);
    const auto later = make_cuda_device(0, kernels::cuda::make_kernels(/*deterministic=*/false));
    later->kernel_state()->apply(recorded);
    plan_one(*later);
    EXPECT_EQ(later->kernel_state()->choices(), recorded);
    EXPECT_TRUE(later->kernel_state()->tune().empty());
    EXPECT_EQ(later->kernel_state()->choices(), recorded);
  }

  // Of another library, or unknown: timed here.
  Choices foreign = all_ways(chosen, "bias gelu");
  foreign["cublaslt"] = "1";
  for (const Choices& choices : {foreign, all_ways(chosen, "by hand")}) {
    const auto later = make_cuda_device(0, kernels::cuda::make_kernels(/*deterministic=*/false));
    plan_one(*later);
    later->kernel_state()->apply(choices);
    EXPECT_EQ(way_of(later->kernel_state()->choices()), "bias");
    EXPECT_FALSE(later->kernel_state()->tune().empty());
  }
}

TEST_F(FusedProducts, OneWayIsTakenWhereBitsMustRepeat) {
  const auto timed = make_cuda_device(0, kernels::cuda::make_kernels(/*deterministic=*/false));
  plan_one(*timed);
  const Choices fused = all_ways(timed->kernel_state()->choices(), "bias gelu");
  const auto device = make_cuda_device(0, kernels::cuda::make_kernels(/*deterministic=*/true));
  plan_one(*device);
  device->kernel_state()->apply(fused);
  EXPECT_EQ(way_of(device->kernel_state()->choices()), "bias");
  EXPECT_TRUE(device->kernel_state()->tune().empty());
}

}  // namespace
}  // namespace strake::test
