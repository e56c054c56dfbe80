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

}  // namespace

JobInputs JobInputs::open(const Config& config, int rank, int ranks) {
  JobInputs inputs;
  inputs.job.config = config;
  inputs.job.derived = derive(config, ranks);
  inputs.job.rank = rank;
  inputs.job.ranks = ranks;
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
  return inputs;
}

}  // namespace strake::launch
