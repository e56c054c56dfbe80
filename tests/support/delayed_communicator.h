// DelayedCommunicator: a communicator whose collectives begin late: before each one, an operation on the same
// stream sleeps for a fixed time and a time per byte of the collective. On chosen ranks or on all.
//
// The sleep takes no core, so it stands for a slow link: it can be hidden behind computation, and when it is
// not it shows as communication of that rank. CPU device. Threads, errors: as the communicator inside.
#pragma once

#include <algorithm>
#include <chrono>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "comm/forwarding_communicator.h"

namespace strake::test {

struct CollectiveDelay {
  std::chrono::nanoseconds fixed{0};
  double nanoseconds_per_byte = 0;  // of the tensor that is reduced, sent or, with several, the larger one
  std::vector<int> ranks = {};      // of the group, that are delayed; empty: all
};

class DelayedCommunicator final : public comm::ForwardingCommunicator {
 public:
  DelayedCommunicator(std::unique_ptr<comm::Communicator> inner, CollectiveDelay delay)
      : ForwardingCommunicator(std::move(inner)), delay_(std::move(delay)) {
    delayed_ = delay_.ranks.empty();
    for (const int delayed : delay_.ranks) delayed_ = delayed_ || delayed == rank();
  }

  std::unique_ptr<comm::Communicator> split(int color, int key) override {
    auto part = ForwardingCommunicator::split(color, key);
    if (part == nullptr) return nullptr;
    auto delayed = std::make_unique<DelayedCommunicator>(std::move(part), delay_);
    delayed->delayed_ = delayed_;  // a rank is delayed in all of its groups
    return delayed;
  }

  // From the next collective on.
  void set_delay(std::chrono::nanoseconds fixed, double nanoseconds_per_byte) {
    delay_.fixed = fixed;
    delay_.nanoseconds_per_byte = nanoseconds_per_byte;
  }

 private:
  void launch(Stream& stream, const Operation& operation, Body body) override {
    if (delayed_) {
      std::size_t size_bytes = 0;
      for (const std::span<const Tensor> touched : {operation.reads, operation.writes}) {
        for (const Tensor& tensor : touched) size_bytes = std::max(size_bytes, tensor.extent_bytes());
      }
      const auto pause = delay_.fixed + std::chrono::nanoseconds(static_cast<std::int64_t>(
                                            delay_.nanoseconds_per_byte * static_cast<double>(size_bytes)));
      const std::string name = "delay of " + std::string(operation.label.name);
      stream.launch({.label = {name, operation.label.phase}, .kind = "delay", .reads = {}, .writes = {}},
                    [pause](NativeStream) { std::this_thread::sleep_for(pause); });
    }
    ForwardingCommunicator::launch(stream, operation, std::move(body));
  }

  CollectiveDelay delay_;
  bool delayed_ = false;
};

}  // namespace strake::test
