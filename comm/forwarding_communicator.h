// Base for wrappers around a communicator: forwards everything, and a wrapper overrides what it adds (launch(): an
// operation beside each collective; split(): to wrap the parts too). The wrapper checks and declares; what its
// collectives do is the inner communicator's.
// Threads, errors: as the communicator inside.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "comm/communicator.h"

namespace strake::comm {

class ForwardingCommunicator : public Communicator {
 public:
  explicit ForwardingCommunicator(std::unique_ptr<Communicator> inner) : inner_(std::move(inner)) {}

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  std::string backend() const override { return inner_->backend(); }
  std::size_t staging_bytes() const override { return inner_->staging_bytes(); }
  void register_memory(const Arena& arena) override { inner_->register_memory(arena); }
  void forget_memory(const Arena& arena) noexcept override { inner_->forget_memory(arena); }
  std::string waits_for() const override { return inner_->waits_for(); }
  std::unique_ptr<Communicator> split(int color, int key) override { return inner_->split(color, key); }
  void check() override { inner_->check(); }
  void abort() noexcept override { inner_->abort(); }

 protected:
  bool moves_memory_of(DeviceKind kind) const override { return inner_->moves_memory_of(kind); }
  Body all_reduce_body(const std::string& name, const Tensor& data) override {
    return inner_->all_reduce_body(name, data);
  }
  Body reduce_scatter_body(const std::string& name, const Tensor& out, const Tensor& in) override {
    return inner_->reduce_scatter_body(name, out, in);
  }
  Body all_gather_body(const std::string& name, const Tensor& out, const Tensor& in) override {
    return inner_->all_gather_body(name, out, in);
  }
  Body broadcast_body(const std::string& name, const Tensor& data, int root) override {
    return inner_->broadcast_body(name, data, root);
  }
  Body all_to_all_body(const std::string& name, const Tensor& out, std::vector<std::int64_t> recv_elems,
                       const Tensor& in, std::vector<std::int64_t> send_elems) override {
    return inner_->all_to_all_body(name, out, std::move(recv_elems), in, std::move(send_elems));
  }
  Body barrier_body(const std::string& name) override { return inner_->barrier_body(name); }
  void interrupt() noexcept override { inner_->interrupt(); }
  void launch(Stream& stream, const Operation& operation, Body body) override {
    inner_->launch(stream, operation, std::move(body));
  }

 private:
  std::unique_ptr<Communicator> inner_;
};

}  // namespace strake::comm
