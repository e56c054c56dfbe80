#include "launch/commands/generate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <vector>

#include "checkpoint/reader.h"
#include "data/byte_tokenizer.h"
#include "data/tokenizer_identity.h"
#include "launch/job/devices.h"
#include "launch/job/rank_environment.h"
#include "launch/run/checkpoint_model.h"
#include "launch/run/checkpoint_source.h"
#include "models/parameters/flat_params.h"
#include "models/parameters/owned_ranges.h"
#include "models/transformer.h"
#include "runtime/base/error.h"
#include "runtime/base/random.h"
#include "runtime/device/host_memory.h"
#include "runtime/device/recording.h"

namespace strake::launch {
namespace {

// Index drawn from softmax(logits / temperature).
std::int32_t draw(std::span<const float> logits, double temperature, double uniform) {
  const auto likeliest = std::max_element(logits.begin(), logits.end());
  if (temperature <= 0) return static_cast<std::int32_t>(likeliest - logits.begin());
  std::vector<double> weights;
  double sum = 0;
  for (const float logit : logits)
    sum += weights.emplace_back(std::exp((static_cast<double>(logit) - *likeliest) / temperature));
  double left = uniform * sum;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if ((left -= weights[i]) < 0) return static_cast<std::int32_t>(i);
  }
  return static_cast<std::int32_t>(likeliest - logits.begin());
}

// A model with trained weights that tells what follows a sequence. Computes in f32 on every device.
class Predictor {
 public:
  Predictor(Files& files, const checkpoint::FoundCheckpoint& found, std::unique_ptr<Device> device)
      : shape_(model_of(found)),
        device_(std::move(device)),
        stream_(device_->make_stream("compute", StreamPriority::kNormal)),
        model_(shape_, layout_),
        weights_(Tensor::reserve(memory_, DType::kF32, {layout_.total_elems()})),
        tokens_(Tensor::reserve(memory_, DType::kI32, {1, shape_.sequence})),
        host_tokens_(Tensor::reserve(host_, DType::kI32, {1, shape_.sequence})),
        host_logits_(Tensor::reserve(host_, DType::kF32, {shape_.padded_vocab()})),
        staging_(Tensor::reserve(host_, DType::kU8, {4 << 20})),
        activations_(memory_),
        params_(layout_, weights_, Tensor()) {
    model_.reserve(activations_, 1, DType::kF32, device_->kind());
    const Tensor workspace = plan_workspace();
    memory_.allocate(*device_);
    host_.allocate(*device_);
    if (workspace.defined()) stream_->set_workspace(workspace);
    TensorTable table;
    models::append_ranges(table, "param/", layout_, weights_);
    checkpoint::read_tensors(files, found, table, found.manifest.meta.model, *stream_, staging_);
  }

  const models::TransformerShape& shape() const { return shape_; }

  // Scores of every id as the token behind `context`, of which the last `sequence` tokens count.
  std::span<const float> next(std::span<const std::int32_t> context) {
    const auto used = std::min<std::size_t>(context.size(), static_cast<std::size_t>(shape_.sequence));
    const std::span<std::int32_t> input = host_span<std::int32_t>(host_tokens_);
    std::fill(input.begin(), input.end(), 0);  // attention is causal: what lies behind the context is not seen
    std::copy(context.end() - static_cast<std::ptrdiff_t>(used), context.end(), input.begin());
    stream_->copy({"tokens", Phase::kInput}, tokens_, host_tokens_);
    model_.forward({*stream_, params_, Phase::kEval}, tokens_);
    const Tensor row =
        model_.logits().slice(0, static_cast<std::int64_t>(used) - 1, 1).reshape({shape_.padded_vocab()});
    stream_->copy({"logits", Phase::kEval}, host_logits_, row);
    stream_->synchronize();
    // A model may have more ids than bytes; those were never trained.
    const std::int64_t ids = std::min(shape_.vocab, data::ByteTokenizer::kVocab);
    return host_span<float>(host_logits_).first(static_cast<std::size_t>(ids));
  }

 private:
  // A dry run of the forward pass: GPU kernels build what they keep and say what scratch memory they need.
  Tensor plan_workspace() {
    PlanDevice plan(*device_);
    const auto stream = plan.make_stream("compute", StreamPriority::kNormal);
    model_.forward({*stream, params_, Phase::kEval}, tokens_);
    const std::size_t size_bytes = plan.recording().workspace_bytes(stream->index());
    return size_bytes == 0 ? Tensor() : Tensor::reserve(memory_, DType::kU8, {static_cast<std::int64_t>(size_bytes)});
  }

  models::TransformerShape shape_;
  std::unique_ptr<Device> device_;
  Arena memory_{"generate", MemoryKind::kDevice}, host_{"generate staging", MemoryKind::kHost};
  std::unique_ptr<Stream> stream_;
  ParamLayout layout_;
  models::Transformer model_;
  Tensor weights_, tokens_, host_tokens_, host_logits_, staging_;
  ActivationMemory activations_;
  models::FlatParams params_;
};

std::unique_ptr<Predictor> make_predictor(Files& files, const checkpoint::FoundCheckpoint& found, DeviceChoice choice) {
  const data::TokenizerIdentity tokenizer =
      data::tokenizer_from_json(found.manifest.meta.tokenizer, found.path.string());
  if (tokenizer != data::ByteTokenizer::identity()) {
    throw ConfigError(
        fmt::format("{} was trained on tokens of tokenizer '{}'; only '{}' can be written and read as text here",
                    found.path.string(), tokenizer.name, data::ByteTokenizer::identity().name));
  }
  const GpuOffer offer = offer_gpu(choice, RankEnvironment{});
  DeviceKind kind = choose_device(choice, {&offer, 1}, /*gpus_before=*/"", "--device ").kind;
  const std::string too_much = models::unsupported(model_of(found), kind, DType::kF32);
  if (!too_much.empty()) {
    if (choice == DeviceChoice::kCuda) throw ConfigError(fmt::format("--device cuda: {}", too_much));
    kind = DeviceKind::kCpu;
  }
  // Deterministic: the same seed writes the same text.
  return std::make_unique<Predictor>(files, found, make_device(kind, {.deterministic = true}));
}

}  // namespace

int run_generate(const GenerateArguments& arguments) {
  PosixFiles files;
  CheckpointSource source(files, arguments.path);
  std::unique_ptr<Predictor> predictor;
  use_checkpoint(source, [&](const checkpoint::FoundCheckpoint& found) {
    predictor = make_predictor(files, found, arguments.device);
  });
  if (arguments.prompt.empty()) throw ConfigError("--prompt: is empty; give at least one character");

  std::vector<std::int32_t> text(arguments.prompt.size());
  data::ByteTokenizer::encode(arguments.prompt, text);
  const Philox random(random_key(arguments.seed, "generate"));
  std::cout << arguments.prompt << std::flush;
  for (std::int64_t i = 0; i < arguments.tokens; ++i) {
    text.push_back(draw(predictor->next(text), arguments.temperature, random.uniform(static_cast<std::uint64_t>(i))));
    std::cout << data::ByteTokenizer::decode(std::span(text).last(1)) << std::flush;
  }
  std::cout << '\n';
  return static_cast<int>(ExitCode::kDone);
}

}  // namespace strake::launch
