// Gate: an operation body that holds its stream until the test opens it, and wait_until, for what a test
// cannot be told about. With both, order is asserted without a single duration.
//
// Everything is relaxed on purpose: passing a gate orders no memory, neither for the machine nor for
// ThreadSanitizer, so a gate never hides a race between the operations around it. What a test reads after a
// stream it must still order by an event or a synchronisation (or keep in relaxed atomics of its own).
//
// Threads: any. Declare a gate before the streams that may be held at it: a stream drains when it is
// destroyed. A gate that is never opened ends as an error of its stream, so that a failed assertion ends the
// test and not in a hang.
#pragma once

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>

#include "runtime/device/operation.h"

namespace strake::test {

// How long a test waits for what must happen: far beyond any slow machine, within the timeout of ctest.
inline constexpr std::chrono::seconds kDeadline{120};

// Polls until `happened()` holds. False: it did not within the deadline.
template <typename Predicate>
[[nodiscard]] bool wait_until(Predicate happened, std::chrono::milliseconds deadline = kDeadline) {
  const auto give_up = std::chrono::steady_clock::now() + deadline;
  while (!happened()) {
    if (std::chrono::steady_clock::now() > give_up) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
  return true;
}

class Gate {
 public:
  Gate() = default;
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;

  void open() { open_.store(true, std::memory_order_relaxed); }
  // Has an operation arrived?
  bool reached() const { return reached_.load(std::memory_order_relaxed); }

  // Blocks the calling thread until the gate is open.
  void pass() {
    reached_.store(true, std::memory_order_relaxed);
    if (!wait_until([this] { return open_.load(std::memory_order_relaxed); })) {
      throw std::runtime_error("the test never opened this gate");
    }
  }
  // The same as an operation of the CPU device. The gate outlives the stream.
  Body body() {
    return [this](NativeStream) { pass(); };
  }

 private:
  std::atomic<bool> open_{false};
  std::atomic<bool> reached_{false};
};

}  // namespace strake::test
