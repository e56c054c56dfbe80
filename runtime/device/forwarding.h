// Bases for wrappers around a device: each forwards everything and a wrapper overrides what it adds
// (order checking, injected faults). Wrappers nest.
#pragma once

#include <memory>
#include <optional>
#include <utility>

#include "runtime/device/device.h"

namespace strake {

class ForwardingStream : public Stream {
 public:
  ForwardingStream(Device& device, std::unique_ptr<Stream> inner) : device_(device), inner_(std::move(inner)) {}

  void launch(const Operation& operation, Body body) override { inner_->launch(operation, std::move(body)); }
  void set_workspace(const Tensor& workspace) override { inner_->set_workspace(workspace); }
  void record(Event& event) override { inner_->record(event); }
  void wait(const Event& event, WaitSite site) override { inner_->wait(event, site); }
  void mark(Mark& mark) override { inner_->mark(mark); }
  void synchronize() override { inner_->synchronize(); }
  Device& device() const override { return device_; }
  const std::string& name() const override { return inner_->name(); }
  int index() const override { return inner_->index(); }

 protected:
  Stream& inner() { return *inner_; }

 private:
  Device& device_;
  std::unique_ptr<Stream> inner_;
};

class ForwardingDevice : public Device {
 public:
  explicit ForwardingDevice(Device& inner) : inner_(inner) {}

  DeviceKind kind() const override { return inner_.kind(); }
  DeviceKind target() const override { return inner_.target(); }
  KernelState* kernel_state() const override { return inner_.kernel_state(); }
  std::string description() const override { return inner_.description(); }
  std::unique_ptr<Stream> make_stream(std::string_view name, StreamPriority priority) override {
    return std::make_unique<ForwardingStream>(*this, inner_.make_stream(name, priority));
  }
  Event make_event(std::string_view name) override { return inner_.make_event(name); }
  Mark make_mark(std::string_view name) override { return inner_.make_mark(name); }
  DeviceAddress allocate(std::string_view name, std::size_t size_bytes, MemoryKind kind) override {
    return inner_.allocate(name, size_bytes, kind);
  }
  void free(DeviceAddress address, MemoryKind kind) noexcept override { inner_.free(address, kind); }
  std::size_t allocated_bytes() const override { return inner_.allocated_bytes(); }
  std::optional<std::size_t> driver_bytes() const override { return inner_.driver_bytes(); }
  std::optional<std::size_t> free_bytes() const override { return inner_.free_bytes(); }
  bool complete(const Event& event) const override { return inner_.complete(event); }
  bool complete(const Mark& mark) const override { return inner_.complete(mark); }
  void synchronize(const Event& event) override { inner_.synchronize(event); }
  EventTicket ticket(const Event& event) const override { return inner_.ticket(event); }
  void host_wait(EventTicket ticket) override { inner_.host_wait(ticket); }
  Nanoseconds elapsed(const Mark& from, const Mark& to) const override { return inner_.elapsed(from, to); }
  Nanoseconds starved(const Mark& from, const Mark& to) const override { return inner_.starved(from, to); }
  void check() override { inner_.check(); }
  Body copy_body(const Tensor& dst, const Tensor& src) override { return inner_.copy_body(dst, src); }
  Body zero_body(const Tensor& dst) override { return inner_.zero_body(dst); }
  Body publish_body(const Tensor& host_dst, const Tensor& src) override { return inner_.publish_body(host_dst, src); }
  Body fetch_body(const Tensor& dst, const Tensor& host_src) override { return inner_.fetch_body(dst, host_src); }
  Body raise_body(const Tensor& host_word) override { return inner_.raise_body(host_word); }
  Body await_body(const Tensor& host_word) override { return inner_.await_body(host_word); }

 protected:
  Device& inner() const { return inner_; }

 private:
  Device& inner_;
};

}  // namespace strake
