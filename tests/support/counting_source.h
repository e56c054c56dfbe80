// CountingSource: a source whose token i is i modulo a number, so that a test sees where a batch came from.
#pragma once

#include <atomic>
#include <cstdint>

#include "data/token_source.h"

namespace strake::test {

class CountingSource final : public data::TokenSource {
 public:
  explicit CountingSource(std::int64_t tokens, std::int64_t modulus = INT32_MAX) : tokens_(tokens), modulus_(modulus) {}

  std::int64_t tokens() const override { return tokens_; }
  void read(std::int64_t begin, std::span<std::int32_t> out) override {
    reads_.fetch_add(1, std::memory_order_relaxed);
    for (std::int32_t& id : out) id = static_cast<std::int32_t>(begin++ % modulus_);
  }
  std::string describe() const override { return "counting source"; }

  // Any thread.
  std::int64_t reads() const { return reads_.load(std::memory_order_relaxed); }

 private:
  std::int64_t tokens_;
  std::int64_t modulus_;
  std::atomic<std::int64_t> reads_{0};
};

}  // namespace strake::test
