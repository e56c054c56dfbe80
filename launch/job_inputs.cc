#include "launch/job_inputs.h"

#include <fmt/format.h>

#include <algorithm>

#include "runtime/base/error.h"

namespace strake::launch {
namespace {

std::unique_ptr<data::TokenFile> open_tokens(const char* key, const std::string& path, std::int64_t sequence,
                                             std::int64_t least_sequences) {
  auto file = std::make_unique<data::TokenFile>(path);
  if (file->sequences(sequence) < least_sequences) {
    throw DataError(
        fmt::format("{}: {} holds {} tokens, too few for {} sequences of train.sequence = {}; use a larger file or a "
                    "smaller sequence",
                    key, path, file->tokens(), least_sequences, sequence));
  }
  return file;
}

void choose_types(Job& job, DeviceKind device) {
  const bool gpu = device == DeviceKind::kCuda;
  const Config::Train& train = job.config.train;
  const bool bf16 = train.dtype == ComputeType::kBF16 || (train.dtype == ComputeType::kAuto && gpu);
  if (bf16 && !gpu)
    throw ConfigError("train.dtype = bf16: the CPU device computes in f32; set train.dtype = auto or f32");
  if (train.gradient_dtype == ComputeType::kBF16 && !bf16) {
    throw ConfigError("train.gradient_dtype = bf16 needs train.dtype = bf16; set train.gradient_dtype = auto");
  }
  const bool wide = train.gradient_dtype == ComputeType::kF32 ||
                    (train.gradient_dtype == ComputeType::kAuto && job.derived.accumulation > 1);
  job.dtype = bf16 ? DType::kBF16 : DType::kF32;
  job.gradient_dtype = bf16 && !wide ? DType::kBF16 : DType::kF32;
  const ComputeType wire = job.config.comm.wire_dtype;
  job.wire_dtype = wire == ComputeType::kAuto   ? job.gradient_dtype
                   : wire == ComputeType::kBF16 ? DType::kBF16
                                                : DType::kF32;
}

}  // namespace

JobInputs JobInputs::open(const Config& config, int rank, int ranks, DeviceKind device) {
  JobInputs inputs;
  inputs.job.config = config;
  inputs.job.derived = derive(config, ranks);
  inputs.job.rank = rank;
  inputs.job.ranks = ranks;
  choose_types(inputs.job, device);
  if (config.data.train.empty()) throw ConfigError("data.train: name a token file (strake data prepare makes one)");
  inputs.train = open_tokens("data.train", config.data.train, config.train.sequence, 1);
  if (!config.data.val.empty()) {
    inputs.val = open_tokens("data.val", config.data.val, config.train.sequence, config.train.micro_batch * ranks);
  }

  const data::TokenFileInfo& info = inputs.train->info();
  const std::int64_t vocab = config.model.vocab != 0 ? config.model.vocab : info.vocab;
  if (vocab == 0) {
    throw ConfigError(
        fmt::format("model.vocab: {} has no sidecar that names its vocabulary; set model.vocab", config.data.train));
  }
  if (info.vocab > vocab) {
    throw ConfigError(fmt::format("model.vocab = {} is smaller than the vocabulary of {} ({}); raise it, or set 0",
                                  vocab, config.data.train, info.vocab));
  }
  if (inputs.val != nullptr && inputs.val->info().tokenizer.known() && info.tokenizer.known() &&
      inputs.val->info().tokenizer != info.tokenizer) {
    throw DataError(fmt::format("data.val: {} was made by tokenizer '{}', {} by '{}'; prepare both with one tokenizer",
                                config.data.val, inputs.val->info().tokenizer.name, config.data.train,
                                info.tokenizer.name));
  }
  inputs.job.shape = {.layers = config.model.layers,
                      .channels = config.model.channels,
                      .heads = static_cast<int>(config.model.heads),
                      .vocab = vocab,
                      .sequence = config.train.sequence};
  const std::string too_much = models::unsupported(inputs.job.shape, device, inputs.job.dtype);
  if (!too_much.empty()) throw ConfigError(fmt::format("{}; change the model, or set run.device = cpu", too_much));
  return inputs;
}

std::vector<std::pair<std::string, std::string>> JobInputs::identity() const {
  std::vector<std::pair<std::string, std::string>> facts;
  const auto add = [&](const char* key, const data::TokenFile* file) {
    if (file == nullptr) return;
    facts.emplace_back(key, fmt::format("{} tokens", file->tokens()));
    facts.emplace_back(std::string(key) + ", its tokenizer", data::to_json(file->info().tokenizer));
  };
  add("data.train", train.get());
  add("data.val", val.get());
  return facts;
}

}  // namespace strake::launch
