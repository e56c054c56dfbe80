// Device, Stream, Event, Mark: the machine a rank computes on. Two backends, the CPU (cpu/) and CUDA (cuda/),
// keep the same rules; wrappers (order checker, recording, test faults) forward to an inner device.
//
// Rules, for both backends:
//  * A stream runs operations one at a time in the order they were enqueued. Operations on different
//    streams are ordered only by events.
//  * wait(event) binds to the latest record(event) made before the call, as in CUDA; waiting for an
//    event that was never recorded is a no-op.
//  * An event orders and knows no time; a mark tells time and orders nothing: nobody can wait for it.
//  * Enqueueing never blocks the host, except for the bound on queued operations (flow control).
//
// Threads: one host thread (the training thread) enqueues, records, waits and creates. Other host
// threads may call only `host_wait` (ticket) and `complete`.
// Errors: a failed operation poisons its device: what is queued behind it is skipped, events and
// marks still complete, and the next check(), synchronize or host_wait throws what the operation threw.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/device/arena.h"
#include "runtime/device/operation.h"
#include "runtime/device/tensor.h"

namespace strake {

using Nanoseconds = std::chrono::nanoseconds;

enum class DeviceKind : std::uint8_t { kCpu, kCuda, kPlan };

class Device;

// Backend state of an event. Owned by its device, so that queued operations may outlive the handle.
class EventState {
 public:
  virtual ~EventState() = default;
};

// A point in a stream that others can be ordered behind. Move-only; recorded by one stream at a time.
class Event {
 public:
  Event(EventState& state, std::string_view name) : state_(&state), name_(name) {}
  Event(Event&&) = default;
  Event& operator=(Event&&) = default;
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  EventState& state() const { return *state_; }
  const std::string& name() const { return name_; }

 private:
  EventState* state_;
  std::string name_;
};

// Backend state of a mark. Owned by its device, as an event's.
class MarkState {
 public:
  virtual ~MarkState() = default;
};

// A point in a stream whose time is wanted. Move-only; made by one stream at a time.
class Mark {
 public:
  Mark(MarkState& state, std::string_view name) : state_(&state), name_(name) {}
  Mark(Mark&&) = default;
  Mark& operator=(Mark&&) = default;
  Mark(const Mark&) = delete;
  Mark& operator=(const Mark&) = delete;

  MarkState& state() const { return *state_; }
  const std::string& name() const { return name_; }

 private:
  MarkState* state_;
  std::string name_;
};

// One record of an event, safe to hand to another host thread.
struct EventTicket {
  EventState* state = nullptr;
  std::uint32_t number = 0;
};

class Stream {
 public:
  virtual ~Stream() = default;  // drains; a pending error is the device's to report

  // Enqueues one operation. Ordering: its writes are visible to later operations of this stream, and
  // elsewhere behind an event recorded later.
  virtual void launch(const Operation& operation, Body body) = 0;
  // Scratch memory for the operations of this stream, of at least the largest Operation::workspace_bytes. Stream order
  // keeps its uses apart, so it is part of no declaration.
  virtual void set_workspace(const Tensor&) {}  // where kernels need none
  // Enqueues a record: `event` completes when everything enqueued so far has run.
  virtual void record(Event& event) = 0;
  // What is enqueued after this call starts only once `event` is complete. Never blocks the host.
  virtual void wait(const Event& event, WaitSite site) = 0;
  // Enqueues a look at the device's clock: `mark` is reached, and keeps the time, when everything enqueued so far has
  // run. A mark made again forgets the time before.
  virtual void mark(Mark& mark) = 0;
  // Blocks the host until the stream is idle; throws the device's error. Not for the step path (lint).
  virtual void synchronize() = 0;

  virtual Device& device() const = 0;
  virtual const std::string& name() const = 0;
  virtual int index() const = 0;  // position among the device's streams, from 0

  // dst = src, same dtype and elems, both contiguous, on any memory kinds.
  void copy(Label label, const Tensor& dst, const Tensor& src);
  // Every byte of the (contiguous) tensor becomes zero.
  void zero(Label label, const Tensor& dst);
};

enum class StreamPriority : std::uint8_t { kNormal, kHigh };

// What a backend's kernels keep per device: library handles, chosen algorithms, built plans.
class KernelState {
 public:
  virtual ~KernelState() = default;

  // Times the candidates for everything that planning met and no choice was applied to, and keeps the fastest. Blocks;
  // takes memory of its own, so before a step's memory is taken. Returns a line for people each. Nothing where choices
  // must repeat (deterministic).
  virtual std::vector<std::string> tune() = 0;
  // What was chosen, as plain data, for the other ranks, the manifest and the checkpoint; and back. What cannot be
  // taken here (another version of a library, another GPU) is left out.
  virtual std::map<std::string, std::string> choices() const = 0;
  virtual void apply(const std::map<std::string, std::string>& choices) = 0;
  // What choices are good for, beside what each is of, as any text: the kind of device, libraries, how candidates are
  // found and timed. Choices of another text are not to be applied. Empty: they are not to be kept at all.
  virtual std::string tuned_for() const { return ""; }

  // Products that are enqueued or planned from now on leave so many multiprocessors to what runs beside them. Forward
  // and backward are the kind of a product, not the moment: what backward computes again is a forward product.
  struct SparedMultiprocessors {
    int forward = 0, backward = 0;
  };
  virtual void spare(SparedMultiprocessors) {}  // where there are none
};

class Device {
 public:
  virtual ~Device() = default;

  virtual DeviceKind kind() const = 0;
  // The kind of device that kernels are chosen for: itself, or what a plan device plans for.
  virtual DeviceKind target() const { return kind(); }
  // Null where kernels need none (CPU).
  virtual KernelState* kernel_state() const { return nullptr; }
  virtual std::string description() const = 0;  // "CPU: AMD EPYC, oneDNN 2.6.3"
  virtual std::unique_ptr<Stream> make_stream(std::string_view name, StreamPriority priority) = 0;
  virtual Event make_event(std::string_view name) = 0;
  virtual Mark make_mark(std::string_view name) = 0;

  // Zero-filled memory. Throws OutOfMemoryError naming `name` and the bytes. Used by Arena only.
  virtual DeviceAddress allocate(std::string_view name, std::size_t size_bytes, MemoryKind kind) = 0;
  virtual void free(DeviceAddress address, MemoryKind kind) noexcept = 0;
  // Bytes handed out so far; constant after step 1.
  virtual std::size_t allocated_bytes() const = 0;
  // What this process takes of the device's own memory in all, as the driver says: what was handed out, and what the
  // driver and libraries keep for themselves. Absent where the device's memory is the host's, and if the driver does
  // not tell. Microseconds to milliseconds: not in a step.
  virtual std::optional<std::size_t> driver_bytes() const { return std::nullopt; }

  // What of the device's own memory nobody has taken, as the driver says. Absent where it is the host's.
  virtual std::optional<std::size_t> free_bytes() const { return std::nullopt; }

  // Has the latest record of `event` run? Relaxed: orders nothing and never blocks, so that looking every step hides no
  // missing wait. True for an event never recorded.
  virtual bool complete(const Event& event) const = 0;
  // Has the latest of `mark` been reached? As above; true of a mark never made. What was published to the host before
  // the mark (publish_body) can then be looked at.
  virtual bool complete(const Mark& mark) const = 0;
  // Blocks the training thread until the latest record of `event` has run, and orders it: the host
  // then sees what was written before the record. Throws the device's error.
  virtual void synchronize(const Event& event) = 0;
  // The latest record of `event`, for host_wait. Training thread.
  virtual EventTicket ticket(const Event& event) const = 0;
  // As synchronize, for any other host thread (prefetch, checkpoint writer). If the event was recorded again after the
  // ticket was taken, it may be that later record which is waited for (CUDA): who must not wait so long uses an event
  // that is recorded again only when nobody waits for it any more.
  virtual void host_wait(EventTicket ticket) = 0;

  // Time from one mark to another, possibly on different streams. REQUIRES: both were made and are complete.
  virtual Nanoseconds elapsed(const Mark& from, const Mark& to) const = 0;
  // Of that time, how long the stream of `to` was idle because the host had enqueued nothing.
  // Exact on the CPU device; zero where the backend cannot tell. REQUIRES: same stream, both were made and are
  // complete.
  virtual Nanoseconds starved(const Mark& from, const Mark& to) const = 0;

  // Throws the first error of any operation, if there was one. Cheap; once a step.
  virtual void check() = 0;

  // Bodies of Stream::copy and Stream::zero.
  virtual Body copy_body(const Tensor& dst, const Tensor& src) = 0;
  virtual Body zero_body(const Tensor& dst) = 0;
  // As copy_body for one element into host memory that the host looks at without ordering (ScalarMailbox).
  virtual Body publish_body(const Tensor& host_dst, const Tensor& src) { return copy_body(host_dst, src); }
  // As copy_body for f64 out of host memory that the host fills without ordering (ScalarRing).
  virtual Body fetch_body(const Tensor& dst, const Tensor& host_src) { return copy_body(dst, host_src); }
  // A stream's side of a word of host memory (HostFlag, i32 [1]): it becomes 1 behind what the stream did before; the
  // stream does not move on until it is not 0.
  virtual Body raise_body(const Tensor& host_word) = 0;
  virtual Body await_body(const Tensor& host_word) = 0;
};

}  // namespace strake
