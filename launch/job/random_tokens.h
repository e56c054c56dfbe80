// RandomTokens: uniform token ids, for what is measured or compared and not learnt; and the config of such a job.
// Threads: as data::TokenSource; values. Errors: ConfigError.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data/token_source.h"
#include "launch/config.h"
#include "runtime/base/random.h"

namespace strake::launch {

class RandomTokens final : public data::TokenSource {
 public:
  // Of `config`'s vocabulary, f(run.seed, place): enough that no sequence comes back soon, few enough to be written in
  // a moment.
  explicit RandomTokens(const Config& config);

  std::int64_t tokens() const override { return tokens_; }
  void read(std::int64_t begin, std::span<std::int32_t> out) override;
  std::string describe() const override;

 private:
  std::int64_t tokens_, vocab_;
  Philox random_;
};

// load_config for a job that may go without token files: it has random tokens where it names none, or `random` says so.
// Throws ConfigError if model.vocab is not set then.
Config load_config_with_tokens(const std::string& path, std::vector<std::string> overrides, bool random);
bool asks_for_random_tokens(const Config& config);

}  // namespace strake::launch
