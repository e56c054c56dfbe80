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

#include "comm/communicator.h"

namespace strake::test {

struct CollectiveDelay {
  std::chrono::nanoseconds fixed{0};
  double nanoseconds_per_byte = 0;  // of the tensor that is reduced, sent or, with several, the larger one
  std::vector<int> ranks = {};      // of the group, that are delayed; empty: all
};

class DelayedCommunicator final : public comm::Communicator {
 public:
  DelayedCommunicator(std::unique_ptr<comm::Communicator> inner, CollectiveDelay delay)
      : inner_(std::move(inner)), delay_(std::move(delay)) {
    delayed_ = delay_.ranks.empty();
    for (const int rank : delay_.ranks) delayed_ = delayed_ || rank == inner_->rank();
  }

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  std::string backend() const override { return inner_->backend(); }

  void all_reduce(Stream& stream, Label label, const Tensor& data) override {
    delay(stream, label, data.extent_bytes());
    inner_->all_reduce(stream, label, data);
  }
  void reduce_scatter(Stream& stream, Label label, const Tensor& out, const Tensor& in) override {
    delay(stream, label, in.extent_bytes());
    inner_->reduce_scatter(stream, label, out, in);
  }
  void all_gather(Stream& stream, Label label, const Tensor& out, const Tensor& in) override {
    delay(stream, label, out.extent_bytes());
    inner_->all_gather(stream, label, out, in);
  }
  void broadcast(Stream& stream, Label label, const Tensor& data, int root) override {
    delay(stream, label, data.extent_bytes());
    inner_->broadcast(stream, label, data, root);
  }
  void all_to_all(Stream& stream, Label label, const Tensor& out, std::span<const std::int64_t> recv_elems,
                  const Tensor& in, std::span<const std::int64_t> send_elems) override {
    delay(stream, label, std::max(in.extent_bytes(), out.extent_bytes()));
    inner_->all_to_all(stream, label, out, recv_elems, in, send_elems);
  }
  void barrier(Stream& stream, Label label) override {
    delay(stream, label, 0);
    inner_->barrier(stream, label);
  }
  std::unique_ptr<comm::Communicator> split(int color, int key) override {
    auto part = inner_->split(color, key);
    if (part == nullptr) return nullptr;
    auto delayed = std::make_unique<DelayedCommunicator>(std::move(part), delay_);
    delayed->delayed_ = delayed_;  // a rank is delayed in all of its groups
    return delayed;
  }
  std::string waits_for() const override { return inner_->waits_for(); }
  void check() override { inner_->check(); }
  void abort() noexcept override { inner_->abort(); }

  // From the next collective on.
  void set_delay(std::chrono::nanoseconds fixed, double nanoseconds_per_byte) {
    delay_.fixed = fixed;
    delay_.nanoseconds_per_byte = nanoseconds_per_byte;
  }

 private:
  void delay(Stream& stream, Label label, std::size_t size_bytes) {
    if (!delayed_) return;
    const auto pause = delay_.fixed + std::chrono::nanoseconds(static_cast<std::int64_t>(
                                          delay_.nanoseconds_per_byte * static_cast<double>(size_bytes)));
    const std::string name = "delay of " + std::string(label.name);
    stream.launch({.label = {name, label.phase}, .kind = "delay", .reads = {}, .writes = {}},
                  [pause](NativeStream) { std::this_thread::sleep_for(pause); });
  }

  std::unique_ptr<comm::Communicator> inner_;
  CollectiveDelay delay_;
  bool delayed_ = false;
};

}  // namespace strake::test
