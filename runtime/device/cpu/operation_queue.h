// One-way plumbing between the host and a stream's worker, and between streams.
//
// Information flows host -> worker (operations) and recorder -> waiter (events), never back: no mutex, no
// condition variable, no std::atomic::wait. And whoever is behind learns no more than it was promised: each
// operation and each record is published by an atomic of its own, not by a counter that has moved on since. So
// running an operation orders nothing by luck, and ThreadSanitizer sees exactly the order that events promise:
// a missing wait is a reported race. The flow control and the clock reads are relaxed for the same reason.
#pragma once

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <climits>
#include <cstdint>
#include <ctime>
#include <functional>
#include <utility>

#include "runtime/device/device.h"

namespace strake::cpu {

// Reads that only look (completion, times) order nothing under ThreadSanitizer. On weakly ordered
// machines they still must not run ahead of the flag, so elsewhere they acquire.
#ifdef STRAKE_TSAN
inline constexpr std::memory_order kLookOrder = std::memory_order_relaxed;
#else
inline constexpr std::memory_order kLookOrder = std::memory_order_acquire;
#endif

// Raw futex: unlike std::atomic::wait it shares no waiter pool that would order unrelated threads.
inline void park(std::atomic<std::uint32_t>& word, std::uint32_t seen) {
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0);
}
inline void unpark_all(std::atomic<std::uint32_t>& word) {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

inline std::int64_t monotonic_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * std::int64_t{1'000'000'000} + now.tv_nsec;
}

// State of an event. `recorded` is host side: the number of records enqueued. `done` is the number of
// the latest record that has run.
struct CpuEventState final : EventState {
  // Record n is published in slot n % kSlots. (Only a waiter kSlots records late would learn too much.)
  static constexpr std::uint32_t kSlots = 16;

  std::atomic<std::uint32_t> done{0};
  std::array<std::atomic<std::uint32_t>, kSlots> published{};
  std::uint32_t recorded = 0;

  void complete(std::uint32_t number) {
    published[number % kSlots].store(number, std::memory_order_release);
    done.store(number, std::memory_order_release);
    unpark_all(done);
  }
  static bool reached(std::uint32_t done_number, std::uint32_t number) {
    return static_cast<std::int32_t>(done_number - number) >= 0;
  }
  // Blocks the calling thread until record `number` has run, and orders it.
  void await(std::uint32_t number) {
    for (std::uint32_t seen; !reached(seen = done.load(kLookOrder), number);) park(done, seen);
    while (!reached(published[number % kSlots].load(std::memory_order_acquire), number)) {
    }  // stored before `done`: visible at once
  }
};

// State of a mark. `made` is host side, as `recorded` above. Nobody is woken: a mark is only looked at.
struct CpuMarkState final : MarkState {
  std::atomic<std::uint32_t> reached{0};  // the number of the latest that has run
  std::uint32_t made = 0;
  std::atomic<std::int64_t> time_ns{0};     // of that one
  std::atomic<std::int64_t> starved_ns{0};  // of its stream until then

  void reach(std::uint32_t number, std::int64_t now_ns, std::int64_t starved_total_ns) {
    time_ns.store(now_ns, std::memory_order_relaxed);
    starved_ns.store(starved_total_ns, std::memory_order_relaxed);
    reached.store(number, std::memory_order_release);
  }
};

// Single producer (the training thread), single consumer (the worker), in order, bounded.
class OperationQueue {
 public:
  static constexpr std::uint32_t kMaxQueued = 16384;

  OperationQueue() = default;
  OperationQueue(const OperationQueue&) = delete;
  OperationQueue& operator=(const OperationQueue&) = delete;
  ~OperationQueue() {
    while (head_ != nullptr) delete std::exchange(head_, head_->next.load(std::memory_order_relaxed));
  }

  // Host. Blocks only while kMaxQueued operations are waiting to run.
  void push(std::function<void()> operation) {
    const std::uint32_t submitted = submitted_.load(std::memory_order_relaxed);
    while (submitted - taken_.load(std::memory_order_relaxed) >= kMaxQueued) {
      const timespec pause{.tv_sec = 0, .tv_nsec = 50'000};
      nanosleep(&pause, nullptr);
    }
    Node* node = new Node{std::move(operation), {}};
    tail_->next.store(node, std::memory_order_release);
    tail_ = node;
    submitted_.store(submitted + 1, std::memory_order_relaxed);
    unpark_all(submitted_);
  }

  // Worker. Blocks until there is an operation; adds the time it was blocked to `starved_ns`.
  std::function<void()> pop(std::int64_t& starved_ns) {
    Node* next = head_->next.load(std::memory_order_acquire);
    if (next == nullptr) {
      const std::int64_t idle_since_ns = monotonic_ns();
      while ((next = head_->next.load(std::memory_order_acquire)) == nullptr) park(submitted_, popped_);
      starved_ns += monotonic_ns() - idle_since_ns;
    }
    ++popped_;
    taken_.store(popped_, std::memory_order_relaxed);
    delete std::exchange(head_, next);
    return std::move(head_->operation);
  }

 private:
  struct Node {
    std::function<void()> operation;
    std::atomic<Node*> next{nullptr};
  };
  Node* head_ = new Node;  // worker side: the node taken last
  std::uint32_t popped_ = 0;
  std::atomic<std::uint32_t> taken_{0};
  alignas(64) Node* tail_ = head_;  // host side
  std::atomic<std::uint32_t> submitted_{0};
};

}  // namespace strake::cpu
