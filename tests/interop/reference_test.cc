// Training from imported weights against what PyTorch has trained from the same weights on the same samples, as
// make_references.py stored it: the loss of every step, the first gradient, the logits of what is exported.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "checkpoint/reader.h"
#include "launch/commands/host_weights.h"
#include "launch/run/metrics.h"
#include "launch/run/run_folder.h"
#include "models/parameters/owned_ranges.h"
#include "runtime/device/cpu/cpu_device.h"
#include "runtime/device/host_memory.h"
#include "tests/integration/strake_program.h"
#include "tests/interop/imported_weights.h"
#include "tests/models/transformer_on_device.h"
#include "tests/support/scratch_folder.h"

namespace strake::test {
namespace {

namespace fs = std::filesystem;

// In f64 PyTorch itself is 1e-6 away from what is stored, in each of them.
constexpr double kLossTolerance = 1e-5;      // nats a token
constexpr double kGradientTolerance = 1e-5;  // of a tensor, relative in the norm
constexpr double kLogitsTolerance = 1e-5, kTrainedLogitsTolerance = 1e-4;

std::vector<std::string> references() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(STRAKE_REFERENCES)) {
    if (fs::exists(entry.path() / "reference.json")) names.push_back(entry.path().filename().string());
  }
  std::ranges::sort(names);
  return names;
}

class Reference : public testing::TestWithParam<std::string> {
 protected:
  Reference()
      : reference_(fs::path(STRAKE_REFERENCES) / GetParam()),
        told_(nlohmann::json::parse(std::ifstream(reference_ / "reference.json"))),
        tensors_(checkpoint::Safetensors::open(files_, reference_ / "reference.safetensors")) {}

  fs::path path(const std::string& name) const { return scratch_.path() / name; }

  void strake(std::vector<std::string> arguments) {
    const ProgramEnd end = StrakeProgram::run(0, std::move(arguments), scratch_.path());
    ASSERT_EQ(end.exit_code, 0) << end.output;
    output_ = end.output;
  }

  // The run starts from the weights, its model in the very keys that import prints.
  void import() {
    strake({"import", reference_.string(), "--run", path("run").string(), "--tokenizer", "parity"});
    std::istringstream line(output_.substr(output_.find("train with: ") + 12));
    for (std::string key; line >> key;) model_keys_.push_back(key);
  }
  void train(std::int64_t stop_at) {
    std::vector<std::string> arguments{"train", path("job.toml").string()};
    std::ofstream(path("job.toml")) << "[run]\ndevice = \"cpu\"\n";
    arguments.insert(arguments.end(), model_keys_.begin(), model_keys_.end());
    const auto add = [&](const char* key, const auto& value) { arguments.push_back(fmt::format("{}={}", key, value)); };
    const auto add_told = [&](const char* key, const char* name) { add(key, told_.at(name).dump()); };
    add("data.train", (reference_ / "train.bin").string());
    add("train.stop_at", stop_at);
    add("train.dtype", "f32");
    add("checkpoint.every", 1000);
    add("checkpoint.keep", 9);
    add_told("run.seed", "seed");
    add_told("train.steps", "schedule_steps");
    add_told("train.global_batch", "batch");
    add_told("train.micro_batch", "batch");
    add_told("optimizer.learning_rate", "learning_rate");
    add_told("optimizer.min_learning_rate", "min_learning_rate");
    add_told("optimizer.warmup_steps", "warmup_steps");
    add_told("optimizer.beta1", "beta1");
    add_told("optimizer.beta2", "beta2");
    add_told("optimizer.epsilon", "epsilon");
    add_told("optimizer.weight_decay", "weight_decay");
    add_told("optimizer.clip_norm", "clip_norm");
    strake(std::move(arguments));
  }
  std::vector<launch::StepMetrics> steps() {
    return launch::read_metrics(files_, launch::metrics_path(path("run"))).steps;
  }

  std::vector<float> told(const std::string& name) {
    const checkpoint::SafetensorsEntry* entry = tensors_.find(name);
    if (entry == nullptr) throw std::runtime_error("the reference has no " + name);
    std::vector<float> values(static_cast<std::size_t>(entry->elems()));
    tensors_.read_f32(*entry, 0, values);
    return values;
  }
  // |ours - theirs| / |theirs|, in the norm.
  static double distance(std::span<const float> ours, std::span<const float> theirs) {
    double apart = 0, size = 0;
    for (std::size_t i = 0; i < theirs.size(); ++i) {
      const double a = ours[i], b = theirs[i];
      apart += (a - b) * (a - b);
      size += b * b;
    }
    return std::sqrt(apart / size);
  }

  // The gradient of step 1, with their names and in their order: the first moment starts at zero, so it is
  // (1 - beta1) times the clipped gradient.
  void expect_first_gradient() {
    const auto found = *checkpoint::find_newest(files_, launch::checkpoint_folder(path("run")));
    ASSERT_EQ(found.manifest.meta.step, 1);
    const auto shape = models::TransformerShape::from_json(found.manifest.meta.model);
    launch::HostWeights moments(shape);
    moments.memory.allocate(*moments.device);
    TensorTable table;
    models::append_ranges(table, "adam_m/", moments.layout, moments.flat);
    launch::read_into(files_, found, moments, table);
    const double norm = steps().at(0).grad_norm, clip = told_.at("clip_norm"), beta1 = told_.at("beta1");
    const double scale = 1 / (1 - beta1) / std::min(1.0, clip / norm);
    const std::vector<models::ForeignTensor> tensors = models::hugging_face_tensors(shape);
    for (const models::ForeignTensor& tensor : tensors) {
      const std::string name = models::with_hugging_face_prefix(shape, tensor.name);
      std::vector<float> ours(static_cast<std::size_t>(tensor.elems()));
      models::copy_to(tensor, moments.layout.spec(tensor.param), host_span<float>(moments.view(tensor.param)), ours);
      for (float& value : ours) value = static_cast<float>(scale * value);
      EXPECT_LE(distance(ours, told("gradient/" + name)), kGradientTolerance) << name;
    }
    const auto gradients = std::ranges::count_if(tensors_.entries(),
                                                 [](const auto& entry) { return entry.name.starts_with("gradient/"); });
    EXPECT_EQ(static_cast<std::size_t>(gradients), tensors.size());
  }

  // Of the weights in a folder of Hugging Face's files.
  void expect_logits(const fs::path& weights, const std::string& expected, double tolerance) {
    const auto shape =
        models::shape_from_hugging_face(read_file(files_, weights / "config.json", 1 << 20), "config.json");
    const std::unique_ptr<Device> device = make_cpu_device();
    const checkpoint::SafetensorsEntry& entry = *tensors_.find("tokens");
    std::vector<std::int64_t> tokens(static_cast<std::size_t>(entry.elems()));
    tensors_.read(entry, 0, std::as_writable_bytes(std::span(tokens)));
    TransformerOnDevice model(*device, shape, entry.shape[0], DType::kF64);
    import_into<double>(model, shape, files_, weights);
    std::ranges::transform(tokens, model.tokens().begin(),
                           [](std::int64_t id) { return static_cast<std::int32_t>(id); });
    std::ranges::fill(model.targets(), 0);
    model.evaluate();
    std::vector<float> ours;
    const auto vocab = static_cast<std::size_t>(shape.vocab), padded = static_cast<std::size_t>(shape.padded_vocab());
    for (std::size_t token = 0; token < tokens.size(); ++token) {
      for (const double logit : model.logits<double>().subspan(token * padded, vocab))
        ours.push_back(static_cast<float>(logit));
    }
    const std::vector<float> theirs = told(expected);
    ASSERT_EQ(ours.size(), theirs.size());
    EXPECT_LE(distance(ours, theirs), tolerance) << expected;
  }

  PosixFiles files_;
  ScratchFolder scratch_;
  fs::path reference_;
  nlohmann::json told_;
  checkpoint::Safetensors tensors_;
  std::vector<std::string> model_keys_;
  std::string output_;
};

TEST_P(Reference, TrainsAsPyTorchDid) {
  expect_logits(reference_, "logits", kLogitsTolerance);
  ASSERT_NO_FATAL_FAILURE(import());
  ASSERT_NO_FATAL_FAILURE(train(1));
  expect_first_gradient();
  ASSERT_NO_FATAL_FAILURE(train(told_.at("steps")));
  const auto losses = told_.at("losses").get<std::vector<double>>();
  const auto norms = told_.at("norms").get<std::vector<double>>();
  const std::vector<launch::StepMetrics> ours = steps();
  ASSERT_EQ(ours.size(), losses.size());
  for (std::size_t i = 0; i < losses.size(); ++i) {
    EXPECT_NEAR(ours[i].loss, losses[i], kLossTolerance) << "step " << i + 1;
  }
  EXPECT_NEAR(ours[0].grad_norm, norms[0], kGradientTolerance * norms[0]);
  EXPECT_LT(losses.back(), losses.front() - 0.5) << "the reference has learned nothing";
  ASSERT_NO_FATAL_FAILURE(strake({"export", path("run").string(), "--out", path("out").string()}));
  expect_logits(path("out"), "trained_logits", kTrainedLogitsTolerance);
}

INSTANTIATE_TEST_SUITE_P(Models, Reference, testing::ValuesIn(references()), [](const auto& test) {
  std::string name = test.param;
  std::ranges::replace(name, '-', '_');
  return name;
});

}  // namespace
}  // namespace strake::test
