// Our forward pass from imported weights against the same model written from its definition, in double precision.
#include <gtest/gtest.h>

#include <cmath>

#include "models/hugging_face_gpt2.h"
#include "runtime/device/cpu/cpu_device.h"
#include "tests/interop/tiny_gpt2.h"
#include "tests/models/transformer_on_device.h"

namespace strake::test {
namespace {

TEST(Golden, ImportedWeightsGiveTheLogitsOfTheDefinition) {
  TinyGpt2 tiny;
  const std::unique_ptr<Device> device = make_cpu_device();
  TransformerOnDevice gpt(*device, TinyGpt2::kShape, TinyGpt2::kBatch, DType::kF64);
  const auto source = checkpoint::Safetensors::open(tiny.files(), tiny.path("hf"));
  for (const models::HuggingFaceTensor& tensor : models::hugging_face_tensors(TinyGpt2::kShape)) {
    const checkpoint::SafetensorsEntry* entry = source.find(std::string(models::kHuggingFacePrefix) + tensor.name);
    ASSERT_NE(entry, nullptr) << tensor.name;
    ASSERT_EQ(entry->shape, tensor.shape) << tensor.name;
    std::vector<float> theirs(static_cast<std::size_t>(tensor.elems()));
    source.read_f32(*entry, 0, theirs);
    std::vector<float> ours(static_cast<std::size_t>(gpt.layout().spec(tensor.param).elems()));
    models::from_hugging_face(tensor, theirs, ours);
    std::copy(ours.begin(), ours.end(), gpt.weights<double>().begin() + gpt.layout().offset_elems(tensor.param));
  }
  const auto tokens = tiny.golden<std::int32_t>("tokens"), targets = tiny.golden<std::int32_t>("targets");
  std::copy(tokens.begin(), tokens.end(), gpt.tokens().begin());
  std::copy(targets.begin(), targets.end(), gpt.targets().begin());

  EXPECT_NEAR(gpt.evaluate(), tiny.golden<double>("loss")[0], 1e-12);
  const std::vector<double> expected = tiny.golden<double>("logits");
  const std::span<const double> logits = gpt.logits<double>();
  const auto vocab = static_cast<std::size_t>(TinyGpt2::kShape.vocab);
  const auto padded = static_cast<std::size_t>(TinyGpt2::kShape.padded_vocab());
  ASSERT_EQ(logits.size() / padded * vocab, expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    ASSERT_NEAR(logits[i / vocab * padded + i % vocab], expected[i], 1e-11 * (1 + std::abs(expected[i])))
        << "token " << i / vocab << ", id " << i % vocab;
  }
}

}  // namespace
}  // namespace strake::test
