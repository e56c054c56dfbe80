// Our forward pass from imported weights against the same model written from its definition, in double precision.
#include <gtest/gtest.h>

#include <cmath>

#include "runtime/device/cpu/cpu_device.h"
#include "tests/interop/imported_weights.h"
#include "tests/interop/tiny_model.h"
#include "tests/models/transformer_on_device.h"

namespace strake::test {
namespace {

class Golden : public testing::TestWithParam<const char*> {};

TEST_P(Golden, ImportedWeightsGiveTheLogitsOfTheDefinition) {
  TinyModel tiny(GetParam());
  const models::TransformerShape shape = tiny.shape();
  const std::unique_ptr<Device> device = make_cpu_device();
  TransformerOnDevice model(*device, shape, TinyModel::kBatch, DType::kF64);
  import_into<double>(model, shape, tiny.files(), tiny.path("hf"));
  if (HasFatalFailure()) return;
  const auto tokens = tiny.golden<std::int32_t>("tokens"), targets = tiny.golden<std::int32_t>("targets");
  std::copy(tokens.begin(), tokens.end(), model.tokens().begin());
  std::copy(targets.begin(), targets.end(), model.targets().begin());

  EXPECT_NEAR(model.evaluate(), tiny.golden<double>("loss")[0], 1e-12);
  const std::vector<double> expected = tiny.golden<double>("logits");
  const std::span<const double> logits = model.logits<double>();
  const auto vocab = static_cast<std::size_t>(shape.vocab);
  const auto padded = static_cast<std::size_t>(shape.padded_vocab());
  ASSERT_EQ(logits.size() / padded * vocab, expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    ASSERT_NEAR(logits[i / vocab * padded + i % vocab], expected[i], 1e-11 * (1 + std::abs(expected[i])))
        << "token " << i / vocab << ", id " << i % vocab;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, Golden, testing::Values("gpt2", "llama", "llama3", "mistral", "qwen2"),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace strake::test
