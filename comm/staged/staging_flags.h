// StagingFlags: how a stream and a proxy thread pass staging memory to and fro, a chunk after the other.
//
// The stream hands chunk n over once it has filled its part of the memory (and has done with what lay there before),
// and takes it back before it reads the result; the proxy awaits it, works on it, and returns it. Neither side waits
// for a thread of the other: the stream waits for a word that the proxy stores, the proxy looks at one that the stream
// stores. After release() the stream is never held up again, whether or not the proxy still works.
//
// Order, in the stream: hand over n comes behind take back n - 2, and take back n behind hand over n. So two chunks can
// be on their way at once, and three words of a kind are enough for any number of chunks: by the time that chunk n has
// been handed over, the stream has passed its wait for n - 2, whose word the proxy then takes down for n + 1. Only the
// host takes words down, and what the stream does is the same for n and n + 3.
//
// Threads: bodies by the training thread; await and give_back by the proxy; release by any. Errors: none.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>

#include "runtime/device/host_flag.h"

namespace strake::comm {

class StagingFlags {
 public:
  // Reserves its words in `host` (MemoryKind::kHost).
  explicit StagingFlags(Arena& host)
      : handed_over_{HostFlag(host), HostFlag(host), HostFlag(host)},
        returned_{HostFlag(host), HostFlag(host), HostFlag(host)} {}

  // Of the stream, in the order above.
  Body hand_over_body(Device& device, std::int64_t chunk) const { return handed_over_[slot(chunk)].raise_body(device); }
  Body take_back_body(Device& device, std::int64_t chunk) const { return returned_[slot(chunk)].await_body(device); }

  // Waits until the chunk is handed over; false: released, whatever the stream does. Chunks in their order.
  bool await(std::int64_t chunk);
  void give_back(std::int64_t chunk);

  // For good: who waits for a chunk goes on, now and later.
  void release() noexcept;

 private:
  static constexpr std::int64_t kWords = 3;
  static std::size_t slot(std::int64_t chunk) { return static_cast<std::size_t>(chunk % kWords); }

  std::array<HostFlag, kWords> handed_over_, returned_;
  // Between the proxy and release(): no word is taken down behind that. The training thread and its streams never take
  // it, so it orders nothing between them.
  std::mutex release_mutex_;
  std::atomic<bool> released_{false};
};

}  // namespace strake::comm
