// HostFlag: a word of host memory by which a stream and a host thread that is no part of it tell each other that
// something has been done: down, or up. A stream raises it in its order, or does not move on until it is up; the host
// looks at it, raises it and takes it down.
//
// Whoever has seen a flag up sees what was done before it was raised: the host what the stream did, and the stream what
// the host did. The host waits for no stream and no stream's thread for the host, but for the one that asked to: on a
// GPU the waiting stream holds up no other stream and no host function. Values are fixed, so that what was captured
// once can be run again.
// Threads: bodies are made by the training thread; the rest by any. Errors: none.
#pragma once

#include <atomic>
#include <cstdint>

#include "runtime/device/device.h"
#include "runtime/device/host_memory.h"

namespace strake {

class HostFlag {
 public:
  // Reserves it in `host` (MemoryKind::kHost); down when that is allocated.
  explicit HostFlag(Arena& host) : word_(Tensor::reserve(host, DType::kI32, {1})) {}

  // For a stream of `device`, whose memory the arena is of.
  Body raise_body(Device& device) const { return device.raise_body(word_); }
  Body await_body(Device& device) const { return device.await_body(word_); }

  bool is_up() const { return word().load(std::memory_order_acquire) != 0; }
  void raise() { word().store(1, std::memory_order_release); }
  // Orders nothing by itself: who raises it next is told so by something else.
  void lower() { word().store(0, std::memory_order_relaxed); }

 private:
  std::atomic_ref<std::int32_t> word() const { return std::atomic_ref(host_span<std::int32_t>(word_)[0]); }

  Tensor word_;
};

}  // namespace strake
