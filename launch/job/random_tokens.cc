#include "launch/job/random_tokens.h"

#include <algorithm>
#include <utility>

#include "runtime/base/error.h"

namespace strake::launch {
namespace {

constexpr std::int64_t kStepsUntilAgain = 16, kMostTokens = std::int64_t{1} << 26;

// What data.train says then.
const std::vector<std::string> kNoFiles{"random tokens"};

}  // namespace

RandomTokens::RandomTokens(const Config& config)
    : tokens_(std::max(std::min(kStepsUntilAgain * config.train.global_batch * config.train.sequence, kMostTokens),
                       config.train.sequence) +
              1),
      vocab_(config.model.vocab),
      random_(random_key(static_cast<std::uint64_t>(config.run.seed), "bench tokens")) {}

void RandomTokens::read(std::int64_t begin, std::span<std::int32_t> out) {
  for (std::int32_t& id : out) {
    id = static_cast<std::int32_t>(random_.uniform(static_cast<std::uint64_t>(begin++)) * static_cast<double>(vocab_));
  }
}

std::string RandomTokens::describe() const { return kNoFiles.front(); }

Config load_config_with_tokens(const std::string& path, std::vector<std::string> overrides, bool random) {
  Config defaults;
  defaults.data.train = kNoFiles;
  if (random) overrides.push_back("data.train=" + kNoFiles.front());
  Config config = load_config(path, overrides, std::move(defaults));
  if (asks_for_random_tokens(config) && config.model.vocab == 0) {
    throw ConfigError(
        "model.vocab: random tokens have no vocabulary of their own; set model.vocab (256 for bytes, 50257 for GPT-2)");
  }
  return config;
}

bool asks_for_random_tokens(const Config& config) { return config.data.train == kNoFiles; }

}  // namespace strake::launch
