// InlineDevice: a CPU device that runs each operation at once on the calling thread and keeps its declaration.
#pragma once

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "runtime/device/device.h"

namespace strake::kernels::testing {

struct LaunchedOperation {
  std::string kind;
  std::vector<Tensor> reads;
  std::vector<Tensor> writes;
  double flops;
};

class InlineDevice final : public Device {
 public:
  class InlineStream final : public Stream {
   public:
    explicit InlineStream(InlineDevice& device) : device_(device) {}
    void launch(const Operation& operation, Body body) override {
      device_.launched.push_back({std::string(operation.kind),
                                  {operation.reads.begin(), operation.reads.end()},
                                  {operation.writes.begin(), operation.writes.end()},
                                  operation.flops});
      body({});
    }
    void record(Event&) override {}
    void wait(const Event&, WaitSite) override {}
    void synchronize() override {}
    Device& device() const override { return device_; }
    const std::string& name() const override { return name_; }
    int index() const override { return 0; }

   private:
    InlineDevice& device_;
    std::string name_ = "inline";
  };

  DeviceKind kind() const override { return DeviceKind::kCpu; }
  std::string description() const override { return "inline"; }
  std::unique_ptr<Stream> make_stream(std::string_view, StreamPriority) override {
    return std::make_unique<InlineStream>(*this);
  }
  Event make_event(std::string_view name) override { return Event(event_, name); }
  DeviceAddress allocate(std::string_view, std::size_t size_bytes, MemoryKind) override {
    const std::size_t rounded = (size_bytes + Arena::kAlignmentBytes) / Arena::kAlignmentBytes * Arena::kAlignmentBytes;
    void* const memory = std::aligned_alloc(Arena::kAlignmentBytes, rounded);
    std::memset(memory, 0, rounded);
    return {reinterpret_cast<std::uintptr_t>(memory)};
  }
  void free(DeviceAddress address, MemoryKind) noexcept override { std::free(reinterpret_cast<void*>(address.value)); }
  std::size_t allocated_bytes() const override { return 0; }
  bool complete(const Event&) const override { return true; }
  void synchronize(const Event&) override {}
  EventTicket ticket(const Event& event) const override { return {&event.state(), 0}; }
  void host_wait(EventTicket) override {}
  Nanoseconds elapsed(const Event&, const Event&) const override { return Nanoseconds(0); }
  Nanoseconds starved(const Event&, const Event&) const override { return Nanoseconds(0); }
  void check() override {}
  Body copy_body(const Tensor&, const Tensor&) override { return {}; }
  Body zero_body(const Tensor&) override { return {}; }

  std::vector<LaunchedOperation> launched;

 private:
  EventState event_;
};

}  // namespace strake::kernels::testing
