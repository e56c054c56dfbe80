#include "models/transformer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <tuple>

#include "runtime/base/error.h"
#include "runtime/device/cpu/cpu_device.h"
#include "runtime/device/order_checker.h"
#include "tests/models/transformer_on_device.h"

namespace strake::test {
namespace {

using models::TransformerShape;

const models::TransformerShape kSmall = models::gpt2_shape(2, 16, 2, 17, 6);
constexpr std::int64_t kBatch = 2;

void draw_tokens(TransformerOnDevice& gpt, const TransformerShape& shape, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::uniform_int_distribution<std::int32_t> id(0, static_cast<std::int32_t>(shape.vocab) - 1);
  for (std::int32_t& token : gpt.tokens()) token = id(random);
  for (std::int32_t& target : gpt.targets()) target = id(random);
}

// Weights far from the initial ones: biases and norms that matter, every path of the gradient of ordinary size.
void draw_weights(TransformerOnDevice& gpt, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal(0, 0.3);
  for (std::size_t i = 0; i < gpt.layout().size(); ++i) {
    const ParamId id{static_cast<std::int32_t>(i)};
    const double center = gpt.layout().spec(id).initial.kind == InitialValue::Kind::kOnes ? 1 : 0;
    const auto begin = static_cast<std::size_t>(gpt.layout().offset_elems(id));
    for (std::size_t e = 0; e < static_cast<std::size_t>(gpt.layout().spec(id).elems()); ++e) {
      gpt.weights<double>()[begin + e] = center + normal(random);
    }
  }
}

std::vector<double> copy_of(std::span<const double> values) { return {values.begin(), values.end()}; }

class TransformerTest : public testing::Test {
 protected:
  std::unique_ptr<Device> device_ = make_cpu_device();
};

// Every kind of every part, and head counts that do not divide each other's sizes.
struct NamedShape {
  const char* name;
  TransformerShape shape;
};

TransformerShape llama(std::int64_t heads, std::int64_t kv_heads, std::int64_t head_size, bool tied) {
  return {.layers = 2,
          .channels = 16,
          .heads = heads,
          .kv_heads = kv_heads,
          .head_size = head_size,
          .mlp_channels = 24,
          .vocab = 17,
          .sequence = 6,
          .norm = models::Norm::kRms,
          .norm_epsilon = 1e-6,
          .positions = models::Positions::kRotary,
          .mlp = models::Mlp::kSwiglu,
          .biases = models::Biases::kNone,
          .tied_head = tied};
}

std::vector<NamedShape> shapes() {
  std::vector<NamedShape> shapes{{"gpt2", kSmall},
                                 {"llama", llama(6, 2, 4, false)},
                                 {"llama_tied", llama(2, 2, 8, true)},
                                 {"llama_one_key_head", llama(3, 1, 6, true)},
                                 {"qwen2", llama(5, 1, 4, false)},
                                 {"llama3", llama(4, 2, 4, false)}};
  shapes[4].shape.biases = models::Biases::kQkv;
  shapes[5].shape.rotary_base = 100;
  shapes[5].shape.rotary_scaling = {
      .factor = 4, .low_frequency_factor = 1, .high_frequency_factor = 4, .original_sequence = 16};
  return shapes;
}

class EveryShape : public testing::TestWithParam<NamedShape> {
 protected:
  const TransformerShape& shape() const { return GetParam().shape; }
  std::unique_ptr<Device> device_ = make_cpu_device();
};
INSTANTIATE_TEST_SUITE_P(Transformer, EveryShape, testing::ValuesIn(shapes()),
                         [](const auto& shape) { return std::string(shape.param.name); });

TEST_P(EveryShape, GradientsAreThoseOfTheLoss) {
  const std::uint64_t seed = 20240607;
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  TransformerOnDevice gpt(*device_, shape(), kBatch, DType::kF64);
  draw_weights(gpt, seed);
  draw_tokens(gpt, shape(), seed);
  // Backward overwrites; what was there before is of no consequence.
  std::ranges::fill(gpt.gradients<double>(), std::numeric_limits<double>::quiet_NaN());
  gpt.train();
  const std::vector<double> gradients = copy_of(gpt.gradients<double>());

  std::mt19937_64 random(seed);
  for (std::size_t i = 0; i < gpt.layout().size(); ++i) {
    const ParamId id{static_cast<std::int32_t>(i)};
    const ParamSpec& spec = gpt.layout().spec(id);
    double largest = 0;
    std::uniform_int_distribution<std::int64_t> pick(0, spec.elems() - 1);
    for (int trial = 0; trial < 12; ++trial) {
      std::int64_t elem = pick(random);
      // Rows of the vocabulary and of positions, not of padding, which has no gradient.
      if (spec.name == "wte.weight" || spec.name == "head.weight") elem %= shape().vocab * shape().channels;
      const auto at = static_cast<std::size_t>(gpt.layout().offset_elems(id) + elem);
      const double weight = gpt.weights<double>()[at];
      const auto loss_at = [&](double offset) {
        gpt.weights<double>()[at] = weight + offset;
        const double loss = gpt.evaluate();
        gpt.weights<double>()[at] = weight;
        return loss;
      };
      // Five points: the error is of the fourth power of the distance.
      const double h = 1e-3;
      const double expected = (8 * (loss_at(h) - loss_at(-h)) - (loss_at(2 * h) - loss_at(-2 * h))) / (12 * h);
      largest = std::max(largest, std::abs(expected));
      EXPECT_NEAR(gradients[at], expected, 1e-7 * std::abs(expected) + 1e-10) << spec.name << " element " << elem;
    }
    // Key biases have no gradient (softmax ignores a shift of a row), so only whole parameters are asked for one.
    EXPECT_GT(largest, 1e-6) << spec.name << ": no element has a gradient worth checking";
  }
}

// The fast kernels are other code than the readable ones that double runs on.
TEST_F(TransformerTest, SinglePrecisionFollowsDouble) {
  const models::TransformerShape shape = models::gpt2_shape(3, 64, 4, 300, 40);
  TransformerOnDevice single(*device_, shape, kBatch, DType::kF32), twice(*device_, shape, kBatch, DType::kF64);
  draw_weights(twice, 13);
  for (double& weight : twice.weights<double>()) weight = static_cast<float>(0.3 * weight);
  std::ranges::copy(twice.weights<double>(), single.weights<float>().begin());
  draw_tokens(single, shape, 13);
  draw_tokens(twice, shape, 13);
  EXPECT_NEAR(single.train(), twice.train(), 1e-5);
  for (std::size_t i = 0; i < twice.layout().size(); ++i) {
    const ParamId id{static_cast<std::int32_t>(i)};
    double squares = 0, error_squares = 0;
    for (std::size_t e = 0; e < twice.gradient<double>(id).size(); ++e) {
      const double expected = twice.gradient<double>(id)[e];
      squares += expected * expected;
      error_squares += std::pow(single.gradient<float>(id)[e] - expected, 2);
    }
    EXPECT_LT(error_squares, 1e-10 * squares) << twice.layout().spec(id).name;
  }
}

TEST_F(TransformerTest, FreshWeightsKnowNothing) {
  const models::TransformerShape shape = models::gpt2_shape(2, 32, 4, 200, 32);
  for (const std::uint64_t seed : {1, 2, 3}) {
    TransformerOnDevice gpt(*device_, shape, 4, DType::kF32);
    gpt.initialize(seed);
    draw_tokens(gpt, shape, seed);
    EXPECT_NEAR(gpt.evaluate(), std::log(200.0), 0.05) << "seed " << seed;
  }
}

TEST_P(EveryShape, PaddingRowsHaveNoGradientAndNoSayInTheLoss) {
  TransformerOnDevice model(*device_, shape(), kBatch, DType::kF64);
  draw_weights(model, 5);
  draw_tokens(model, shape(), 5);
  const double loss = model.train();
  int tables = 0;
  for (std::size_t i = 0; i < model.layout().size(); ++i) {
    const ParamId table{static_cast<std::int32_t>(i)};
    const std::string& name = model.layout().spec(table).name;
    if (name != "wte.weight" && name != "head.weight") continue;
    ++tables;
    const auto padding_begin = static_cast<std::size_t>(shape().vocab * shape().channels);
    const std::span<double> gradient = model.gradient<double>(table);
    ASSERT_EQ(gradient.size(), 128u * 16u);
    for (std::size_t e = padding_begin; e < gradient.size(); ++e) ASSERT_EQ(gradient[e], 0.0) << name << e;
    const auto weight_begin = static_cast<std::size_t>(model.layout().offset_elems(table));
    for (std::size_t e = padding_begin; e < gradient.size(); ++e) model.weights<double>()[weight_begin + e] = 100;
  }
  EXPECT_EQ(tables, shape().tied_head ? 1 : 2);
  EXPECT_EQ(model.train(), loss);
}

TEST_P(EveryShape, AccumulatedGradientsAreTheSumOverMicroBatches) {
  TransformerOnDevice gpt(*device_, shape(), kBatch, DType::kF64);
  draw_weights(gpt, 7);
  std::vector<std::vector<double>> parts;
  double loss_sum = 0;
  for (const std::uint64_t seed : {1, 2, 3}) {
    draw_tokens(gpt, shape(), seed);
    loss_sum += gpt.train(0.25);
    parts.push_back(copy_of(gpt.gradients<double>()));
  }
  double accumulated_loss = 0;
  for (const std::uint64_t seed : {1, 2, 3}) {
    draw_tokens(gpt, shape(), seed);
    accumulated_loss = gpt.train(0.25, seed != 1);
  }
  EXPECT_NEAR(accumulated_loss, loss_sum, 1e-14);
  const std::span<const double> accumulated = gpt.gradients<double>();
  for (std::size_t i = 0; i < accumulated.size(); ++i) {
    const double sum = parts[0][i] + parts[1][i] + parts[2][i];
    const double size = std::abs(parts[0][i]) + std::abs(parts[1][i]) + std::abs(parts[2][i]);
    ASSERT_NEAR(accumulated[i], sum, 1e-13 * size + 1e-17) << "element " << i;
  }
}

TEST_P(EveryShape, GradientScaleIsAFactor) {
  TransformerOnDevice gpt(*device_, shape(), kBatch, DType::kF64);
  draw_weights(gpt, 9);
  draw_tokens(gpt, shape(), 9);
  const double loss = gpt.train(1);
  const std::vector<double> whole = copy_of(gpt.gradients<double>());
  EXPECT_EQ(gpt.train(0.25), loss);  // a power of two: exact
  for (std::size_t i = 0; i < whole.size(); ++i) ASSERT_EQ(gpt.gradients<double>()[i], 0.25 * whole[i]) << i;
}

TEST_P(EveryShape, EvaluationSeesTheLossOfTraining) {
  for (const DType dtype : {DType::kF32, DType::kF64}) {
    TransformerOnDevice gpt(*device_, shape(), kBatch, dtype);
    gpt.initialize(3);
    draw_tokens(gpt, shape(), 3);
    const double trained = gpt.train();
    EXPECT_EQ(gpt.evaluate(), trained) << name_of(dtype);
    EXPECT_EQ(gpt.train_loss_only(), trained) << name_of(dtype);
  }
}

TEST_P(EveryShape, GradientsAreFinalWhenReadyInLayoutOrder) {
  TransformerOnDevice gpt(*device_, shape(), kBatch, DType::kF64);
  draw_weights(gpt, 11);
  draw_tokens(gpt, shape(), 11);
  gpt.train();
  ASSERT_EQ(gpt.ready_order().size(), gpt.layout().size());
  for (std::size_t i = 0; i < gpt.layout().size(); ++i) {
    const ParamId id{static_cast<std::int32_t>(i)};
    EXPECT_EQ(gpt.ready_order()[i], id);
    EXPECT_TRUE(std::ranges::equal(gpt.gradient_when_ready<double>(id), gpt.gradient<double>(id)))
        << gpt.layout().spec(id).name << " changed after it was ready";
  }
}

// Bytes of activations that share memory, after checking that neither that nor computing them again changes a bit.
std::size_t checked_bytes(Device& device, const TransformerShape& shape, DType dtype, models::Recompute recompute) {
  const MemoryPlan plan = TransformerOnDevice::plan(shape, kBatch, dtype, recompute);
  CheckedDevice checked(device, CheckedDevice::Policy::kCollect);
  TransformerOnDevice apart(checked, shape, kBatch, dtype);
  TransformerOnDevice shared(checked, shape, kBatch, dtype, &plan, recompute);
  for (TransformerOnDevice* model : {&apart, &shared}) {
    model->initialize(17);
    draw_tokens(*model, shape, 17);
  }
  for (int step = 0; step < 3; ++step) {  // from the second on, memory holds what the first left
    const bool accumulate = step == 2;
    EXPECT_EQ(shared.train(1, accumulate), apart.train(1, accumulate)) << name_of(dtype);
    if (dtype == DType::kF32) {
      EXPECT_TRUE(std::ranges::equal(shared.gradients<float>(), apart.gradients<float>()));
    } else {
      EXPECT_TRUE(std::ranges::equal(shared.gradients<double>(), apart.gradients<double>()));
    }
    EXPECT_EQ(shared.evaluate(), apart.evaluate()) << name_of(dtype);
  }
  for (const OrderChecker::Report& report : checked.checker().reports()) ADD_FAILURE() << report.describe();
  EXPECT_GT(checked.checker().operations_checked(), 0);
  EXPECT_LT(shared.activation_bytes(), apart.activation_bytes() * 9 / 10) << name_of(dtype);
  return shared.activation_bytes();
}

TEST_P(EveryShape, SharedMemoryAndRecomputationChangeNoBit) {
  TransformerShape shape = this->shape();
  shape.layers = 5;
  for (const DType dtype : {DType::kF32, DType::kF64}) {
    const std::size_t none = checked_bytes(*device_, shape, dtype, models::Recompute::kNone);
    const std::size_t cheap = checked_bytes(*device_, shape, dtype, models::Recompute::kNormActivation);
    const std::size_t block = checked_bytes(*device_, shape, dtype, models::Recompute::kBlock);
    EXPECT_LT(cheap, none * 9 / 10) << name_of(dtype);
    EXPECT_LT(block, cheap * 8 / 10) << name_of(dtype);
  }
}

TEST_P(EveryShape, RecomputationIsNoWorkOfTheModel) {
  const auto recorded = [&](models::Recompute recompute) {
    PlanDevice device;
    TransformerOnDevice model(device, shape(), kBatch, DType::kF32, nullptr, recompute);
    model.record_step();
    return std::move(device.recording());
  };
  const Recording none = recorded(models::Recompute::kNone), block = recorded(models::Recompute::kBlock);
  EXPECT_EQ(block.flops(), none.flops());
  // All of a layer but its last projection, once more.
  const std::size_t again = block.entries.size() - none.entries.size();
  EXPECT_EQ(again % static_cast<std::size_t>(shape().layers), 0u);
  EXPECT_EQ(static_cast<std::size_t>(
                std::ranges::count_if(block.entries, [](const RecordedEntry& entry) { return entry.recomputed; })),
            again);
}

// What can be made along with an operation that has the bytes is no operation of its own: GELU, its gradient, the
// gradients of biases but those of queries, keys and values, and the start of the stream's gradient.
TEST_F(TransformerTest, AStepLooksAtNothingTwice) {
  const std::int64_t layers = 3;
  PlanDevice device;
  TransformerOnDevice model(device, models::gpt2_shape(layers, 16, 2, 50, 8), kBatch, DType::kF32);
  model.record_step();
  std::int64_t with_bias = 0;
  for (const RecordedEntry& entry : device.recording().entries) {
    EXPECT_NE(entry.kernel, "gelu_forward") << entry.name;
    EXPECT_NE(entry.kernel, "gelu_backward") << entry.name;
    EXPECT_NE(entry.kernel, "zero") << entry.name;
    if (entry.kernel == "linear_backward_weight" && entry.writes.size() == 2) ++with_bias;
  }
  EXPECT_EQ(with_bias, layers);
}

TEST_F(TransformerTest, PlannedActivationsOfManyLayersShareMemory) {
  const TransformerShape shape = models::gpt2_shape(4, 32, 4, 65, 16);
  for (const DType dtype : {DType::kF32, DType::kF64}) checked_bytes(*device_, shape, dtype, models::Recompute::kNone);
}

TEST(TransformerShapeTest, SurvivesItsJson) {
  const models::TransformerShape shape = models::gpt2_shape(12, 768, 12, 50257, 1024);
  EXPECT_EQ(TransformerShape::from_json(shape.to_json()), shape);
  for (const char* text : {"", "{}", "[1]", R"({"kind":"llama","layers":1})", R"({"kind":"gpt2","layers":"two"})"}) {
    EXPECT_THROW(TransformerShape::from_json(text), IncompatibleCheckpointError) << text;
  }
}

TEST(TransformerShapeTest, SaysWhatGpusCannotCompute) {
  const auto says = [](std::int64_t layers, std::int64_t channels, int heads, DType dtype) {
    return models::unsupported(models::gpt2_shape(layers, channels, heads, 100, 8), DeviceKind::kCuda, dtype);
  };
  // The GPT-2s, and the largest of each kind.
  for (const auto& [layers, channels, heads] :
       {std::tuple{12, 768, 12}, {48, 1600, 25}, {200, 8192, 64}, {1, 4104, 27}, {5000, 64, 1}, {1, 8, 1}}) {
    EXPECT_EQ(says(layers, channels, heads, DType::kBF16), "") << channels;
  }
  EXPECT_EQ(says(1, 2048, 8, DType::kF32), "");
  EXPECT_EQ(says(1, 12, 3, DType::kF32), "");
  EXPECT_EQ(says(1, 4100, 32, DType::kBF16), "in bf16 GPUs take model.channels in steps of 8 up to 1048576, not 4100");
  EXPECT_EQ(says(1, 2052, 18, DType::kF32), "");
  EXPECT_EQ(says(1, 2050, 10, DType::kF32), "in f32 GPUs take model.channels in steps of 4 up to 1048576, not 2050");
  EXPECT_NE(says(1, 24, 2, DType::kBF16).find("heads"), std::string::npos) << "heads of 12";
  EXPECT_NE(says(1, 1024, 2, DType::kF32).find("up to 256 channels, not 512"), std::string::npos);
  EXPECT_EQ(models::unsupported(models::gpt2_shape(1000, 12345, 5, 100, 8), DeviceKind::kCpu, DType::kF32), "");
}

TEST(TransformerShapeTest, RefusesActivationsThatCannotBeCounted) {
  TransformerShape shape = llama(2, 2, 8, true);
  shape.sequence = 1 << 24;
  shape.mlp_channels = 1 << 24;
  EXPECT_EQ(models::unsupported(shape, DeviceKind::kCpu, DType::kF32, 1 << 6), "");
  EXPECT_NE(models::unsupported(shape, DeviceKind::kCpu, DType::kF32, 1 << 20).find("too large for any device"),
            std::string::npos);
}

TEST(TransformerShapeTest, SaysHowWideAnRmsNormMayBe) {
  TransformerShape shape = llama(64, 8, 128, false);
  shape.channels = 16384;
  EXPECT_EQ(models::unsupported(shape, DeviceKind::kCuda, DType::kBF16), "");
  shape.channels = 16392;
  EXPECT_EQ(models::unsupported(shape, DeviceKind::kCuda, DType::kBF16),
            "in bf16 GPUs take model.channels in steps of 8 up to 16384, not 16392");
}

TEST(TransformerShapeTest, SaysWhichSizesGpusDoNotCount) {
  const models::TransformerShape shape = models::gpt2_shape(1, 64, 2, 100, 1024);
  const auto says = [&](DType dtype, std::int64_t batch, DeviceKind device = DeviceKind::kCuda) {
    return models::unsupported(shape, device, dtype, batch);
  };
  EXPECT_EQ(says(DType::kF32, 65535), "");
  EXPECT_EQ(says(DType::kF32, 65536), "in f32 GPUs take at most train.micro_batch = 65535, not 65536");
  EXPECT_EQ(says(DType::kBF16, 1 << 20), "");
  EXPECT_EQ(says(DType::kBF16, (1 << 20) + 1),
            "GPUs take at most 1073741824 tokens at once, train.micro_batch x train.sequence has 1073742848");
  EXPECT_EQ(says(DType::kF32, 1 << 22, DeviceKind::kCpu), "");
  // More than 2^32 elements in one parameter are not too many.
  const models::TransformerShape wide = models::gpt2_shape(1, 2048, 8, 1 << 22, 8);
  EXPECT_EQ(models::unsupported(wide, DeviceKind::kCuda, DType::kF32), "");
  const models::TransformerShape huge = models::gpt2_shape(1400, 4096, 32, 100, 8);
  EXPECT_NE(models::unsupported(huge, DeviceKind::kCuda, DType::kBF16).find("274877906944 elements together"),
            std::string::npos);
}

TEST(TransformerShapeTest, CountsParametersAndFlops) {
  const models::TransformerShape shape = models::gpt2_shape(12, 768, 12, 50257, 1024);
  EXPECT_EQ(shape.padded_vocab(), 50304);
  const std::int64_t elems = models::parameters_of(shape).param_elems();
  EXPECT_EQ(elems, 124'475'904);  // GPT-2 small has 124,439,808 with its 50,257 rows; 47 more of 768 here
  // 6 FLOPs for each of the 12 * 12 * 768^2 block weights and 50304 * 768 head weights; attention 6 T C L.
  EXPECT_EQ(shape.model_flops_per_token(), 6.0 * (84'934'656 + 38'633'472) + 6.0 * 1024 * 768 * 12);
}

}  // namespace
}  // namespace strake::test
