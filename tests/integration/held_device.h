// HeldDevice: a device that watches chosen operations and holds them at gates, so that a test decides who runs first
// and sees who did.
//
// Threads: watch() before the operations are enqueued; a Watch may be read by any thread. All counts are relaxed:
// watching orders nothing. CPU device only. Errors: none of its own.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <utility>

#include "runtime/device/forwarding.h"
#include "tests/support/gate.h"

namespace strake::test {

struct Watch {
  std::string operation;  // its exact name
  Phase phase;
  Gate* gate;  // where it is held before it runs; null: nowhere
  std::atomic<std::int64_t> begun{0}, ended{0};
  // Moments, counted over all watched operations of the device; -1: not yet.
  std::atomic<std::int64_t> first_begin{-1}, last_end{-1};
};

class HeldDevice final : public ForwardingDevice {
 public:
  explicit HeldDevice(Device& inner) : ForwardingDevice(inner) {}

  const Watch& watch(std::string operation, Phase phase, Gate* gate = nullptr) {
    Watch& watch = watches_.emplace_back();
    watch.operation = std::move(operation);
    watch.phase = phase;
    watch.gate = gate;
    return watch;
  }

  std::unique_ptr<Stream> make_stream(std::string_view name, StreamPriority priority) override {
    return std::make_unique<HeldStream>(*this, inner().make_stream(name, priority));
  }

 private:
  class HeldStream final : public ForwardingStream {
   public:
    HeldStream(HeldDevice& device, std::unique_ptr<Stream> inner)
        : ForwardingStream(device, std::move(inner)), held_(device) {}
    void launch(const Operation& operation, Body body) override {
      for (Watch& watch : held_.watches_) {
        if (watch.operation == operation.label.name && watch.phase == operation.label.phase) {
          body = held_.watched(watch, std::move(body));
        }
      }
      ForwardingStream::launch(operation, std::move(body));
    }

   private:
    HeldDevice& held_;
  };

  Body watched(Watch& watch, Body body) {
    return [this, &watch, body = std::move(body)](NativeStream native) {
      if (watch.gate != nullptr) watch.gate->pass();
      std::int64_t first = -1;
      watch.first_begin.compare_exchange_strong(first, moment_.fetch_add(1, std::memory_order_relaxed),
                                                std::memory_order_relaxed);
      watch.begun.fetch_add(1, std::memory_order_relaxed);
      body(native);
      watch.last_end.store(moment_.fetch_add(1, std::memory_order_relaxed), std::memory_order_relaxed);
      watch.ended.fetch_add(1, std::memory_order_relaxed);
    };
  }

  std::deque<Watch> watches_;
  std::atomic<std::int64_t> moment_{0};
};

}  // namespace strake::test
