// ThrottledSource: a source whose reads take longer, as on a slow or busy disk.
//
// Threads: set_delay() from any. The sleep orders nothing under ThreadSanitizer.
#pragma once

#include <atomic>
#include <chrono>
#include <thread>

#include "data/token_source.h"

namespace strake::test {

class ThrottledSource final : public data::TokenSource {
 public:
  // `inner` outlives this source. A loader reads once a sequence.
  ThrottledSource(data::TokenSource& inner, std::chrono::nanoseconds delay_per_read)
      : inner_(inner), delay_ns_(delay_per_read.count()) {}

  void set_delay(std::chrono::nanoseconds delay_per_read) {
    delay_ns_.store(delay_per_read.count(), std::memory_order_relaxed);
  }

  std::int64_t tokens() const override { return inner_.tokens(); }
  void read(std::int64_t begin, std::span<std::int32_t> out) override {
    std::this_thread::sleep_for(std::chrono::nanoseconds(delay_ns_.load(std::memory_order_relaxed)));
    inner_.read(begin, out);
  }
  std::string describe() const override { return inner_.describe(); }

 private:
  data::TokenSource& inner_;
  std::atomic<std::int64_t> delay_ns_;
};

}  // namespace strake::test
