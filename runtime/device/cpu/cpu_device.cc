#include "runtime/device/cpu/cpu_device.h"

#include <fmt/format.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>
#include <fstream>
#include <thread>
#include <unordered_map>

#include "runtime/base/error.h"
#include "runtime/base/poll_until.h"
#include "runtime/base/sticky_error.h"
#include "runtime/device/cpu/cpu_memory.h"
#include "runtime/device/cpu/operation_queue.h"

namespace strake {
namespace {

using cpu::CpuEventState;
using cpu::CpuMarkState;

// Asks the scheduler to run the calling thread in short turns, as soon as it has something to do. Linux (since 6.12)
// then interrupts a thread that computes; by default that one keeps its core for a slice of some milliseconds, and an
// exchange between ranks, which is many short turns, waits as long before each. Where the kernel knows no slices
// nothing changes.
void ask_for_short_turns() {
  constexpr std::uint64_t kShortestSliceNs = 100'000;  // that the kernel grants
  struct {  // sched_attr, first version; its header and glibc's exclude each other
    std::uint32_t size, policy;
    std::uint64_t flags;
    std::int32_t nice;
    std::uint32_t priority;
    std::uint64_t runtime, deadline, period;
  } attributes = {};
  static_assert(sizeof attributes == 48);
  if (syscall(SYS_sched_getattr, 0, &attributes, sizeof attributes, 0) != 0) return;
  if (attributes.policy != SCHED_OTHER) return;  // the user's choice
  attributes.runtime = kShortestSliceNs;
  static_cast<void>(syscall(SYS_sched_setattr, 0, &attributes, 0));
}

class CpuStream final : public Stream {
 public:
  CpuStream(Device& device, StickyError& error, std::string_view name, StreamPriority priority, int index)
      : device_(device), error_(error), name_(name), priority_(priority), index_(index), worker_([this] { run(); }) {}

  ~CpuStream() override {
    queue_.push(nullptr);
    worker_.join();
  }

  void launch(const Operation&, Body body) override {
    queue_.push([this, body = std::move(body)] {
      if (error_.raised()) return;
      try {
        body(NativeStream{});
      } catch (...) {
        error_.raise(std::current_exception());
      }
    });
  }

  void record(Event& event) override { record_state(static_cast<CpuEventState&>(event.state())); }

  void wait(const Event& event, WaitSite) override {
    auto& state = static_cast<CpuEventState&>(event.state());
    queue_.push([&state, number = state.recorded] { state.await(number); });
  }

  void mark(Mark& mark) override {
    auto& state = static_cast<CpuMarkState&>(mark.state());
    queue_.push([this, &state, number = ++state.made] { state.reach(number, cpu::monotonic_ns(), starved_ns_); });
  }

  void synchronize() override {
    record_state(idle_);
    idle_.await(idle_.recorded);
    error_.rethrow_if_raised();
  }

  Device& device() const override { return device_; }
  const std::string& name() const override { return name_; }
  int index() const override { return index_; }

 private:
  void record_state(CpuEventState& state) {
    queue_.push([&state, number = ++state.recorded] { state.complete(number); });
  }

  void run() {
    pthread_setname_np(pthread_self(), name_.substr(0, 15).c_str());
    if (priority_ == StreamPriority::kHigh) ask_for_short_turns();
    while (auto operation = queue_.pop(starved_ns_)) operation();
  }

  Device& device_;
  StickyError& error_;
  std::string name_;
  StreamPriority priority_;
  int index_;
  CpuEventState idle_;
  std::int64_t starved_ns_ = 0;  // worker side
  cpu::OperationQueue queue_;
  std::thread worker_;  // last: it uses everything above
};

std::string cpu_model() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown processor";
}

class CpuDevice final : public Device {
 public:
  ~CpuDevice() override {
    for (const auto& [address, size] : sizes_) munmap(reinterpret_cast<void*>(address), size);
  }

  DeviceKind kind() const override { return DeviceKind::kCpu; }
  std::string description() const override { return "CPU: " + cpu_model(); }

  std::unique_ptr<Stream> make_stream(std::string_view name, StreamPriority priority) override {
    return std::make_unique<CpuStream>(*this, error_, name, priority, next_stream_++);
  }
  Event make_event(std::string_view name) override { return Event(events_.emplace_back(), name); }
  Mark make_mark(std::string_view name) override { return Mark(marks_.emplace_back(), name); }

  DeviceAddress allocate(std::string_view name, std::size_t size_bytes, MemoryKind) override {
    // Fresh pages: zero-filled, and never shared with the C++ heap.
    void* memory = mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
      throw OutOfMemoryError(fmt::format("cannot allocate {} bytes for '{}' on the CPU device: {}", size_bytes, name,
                                         std::strerror(errno)));
    }
    const auto address = reinterpret_cast<std::uintptr_t>(memory);
    sizes_[address] = size_bytes;
    allocated_bytes_ += size_bytes;
    return {address};
  }
  void free(DeviceAddress address, MemoryKind) noexcept override {
    const auto found = sizes_.find(address.value);
    if (found == sizes_.end()) return;
    munmap(reinterpret_cast<void*>(address.value), found->second);
    allocated_bytes_ -= found->second;
    sizes_.erase(found);
  }
  std::size_t allocated_bytes() const override { return allocated_bytes_; }

  bool complete(const Event& event) const override {
    const auto& state = state_of(event);
    return CpuEventState::reached(state.done.load(cpu::kLookOrder), state.recorded);
  }
  bool complete(const Mark& mark) const override {
    const auto& state = state_of(mark);
    return CpuEventState::reached(state.reached.load(cpu::kLookOrder), state.made);
  }
  void synchronize(const Event& event) override { host_wait(ticket(event)); }
  EventTicket ticket(const Event& event) const override { return {&event.state(), state_of(event).recorded}; }
  void host_wait(EventTicket ticket) override {
    static_cast<CpuEventState*>(ticket.state)->await(ticket.number);
    error_.rethrow_if_raised();
  }

  Nanoseconds elapsed(const Mark& from, const Mark& to) const override {
    return Nanoseconds(state_of(to).time_ns.load(std::memory_order_relaxed) -
                       state_of(from).time_ns.load(std::memory_order_relaxed));
  }
  Nanoseconds starved(const Mark& from, const Mark& to) const override {
    return Nanoseconds(state_of(to).starved_ns.load(std::memory_order_relaxed) -
                       state_of(from).starved_ns.load(std::memory_order_relaxed));
  }

  void check() override { error_.rethrow_if_raised(); }

  Body copy_body(const Tensor& dst, const Tensor& src) override {
    if (src.extent_bytes() == 0) return [](NativeStream) {};  // it may have no address
    return [dst, src](NativeStream) { std::memcpy(cpu::bytes(dst), cpu::bytes(src), src.extent_bytes()); };
  }
  Body zero_body(const Tensor& dst) override {
    if (dst.extent_bytes() == 0) return [](NativeStream) {};
    return [dst](NativeStream) { std::memset(cpu::bytes(dst), 0, dst.extent_bytes()); };
  }
  // Relaxed: a look at the value joins no clock, as with times.
  Body publish_body(const Tensor& host_dst, const Tensor& src) override {
    STRAKE_CHECK(src.elems() == 1 && src.dtype() == host_dst.dtype(), "published values are single elements");
    return [host_dst, src](NativeStream) {
      const auto publish = [&]<typename T>(T* to, const T* from) {
        std::atomic_ref(*to).store(*from, std::memory_order_relaxed);
      };
      switch (src.dtype()) {
        case DType::kF64:
          return publish(cpu::data<double>(host_dst), cpu::data<double>(src));
        case DType::kI64:
          return publish(cpu::data<std::int64_t>(host_dst), cpu::data<std::int64_t>(src));
        default:
          return publish(cpu::data<float>(host_dst), cpu::data<float>(src));
      }
    };
  }
  // Relaxed: the host may fill a slot whose last fetch it has seen done by a relaxed look.
  Body fetch_body(const Tensor& dst, const Tensor& host_src) override {
    return [dst, host_src](NativeStream) {
      double* to = cpu::data<double>(dst);
      double* from = cpu::data<double>(host_src);
      for (std::int64_t i = 0; i < host_src.elems(); ++i) {
        to[i] = std::atomic_ref(from[i]).load(std::memory_order_relaxed);
      }
    };
  }
  Body raise_body(const Tensor& host_word) override {
    return [host_word](NativeStream) {
      std::atomic_ref(*cpu::data<std::int32_t>(host_word)).store(1, std::memory_order_release);
    };
  }
  // Looked at, as a GPU does: whoever raises it need not know that a thread waits.
  Body await_body(const Tensor& host_word) override {
    return [host_word](NativeStream) {
      const std::atomic_ref word(*cpu::data<std::int32_t>(host_word));
      poll_until([&] { return word.load(std::memory_order_acquire) != 0; });
    };
  }

 private:
  static CpuEventState& state_of(const Event& event) { return static_cast<CpuEventState&>(event.state()); }
  static CpuMarkState& state_of(const Mark& mark) { return static_cast<CpuMarkState&>(mark.state()); }

  StickyError error_;                 // the first of any operation
  std::deque<CpuEventState> events_;  // outlive every queued operation
  std::deque<CpuMarkState> marks_;    // likewise
  std::unordered_map<std::uintptr_t, std::size_t> sizes_;
  std::size_t allocated_bytes_ = 0;
  int next_stream_ = 0;
};

}  // namespace

std::unique_ptr<Device> make_cpu_device() { return std::make_unique<CpuDevice>(); }

}  // namespace strake
