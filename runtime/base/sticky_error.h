// StickyError: the first error of work that nobody waits for. Workers raise it once; who asks later gets it thrown.
//
// Asking whether there is one orders nothing while there is none, so that looking every step hides no missing wait.
// Threads: any. Errors: rethrow_if_raised throws what was raised first.
#pragma once

#include <atomic>
#include <exception>
#include <utility>

namespace strake {

class StickyError {
 public:
  bool raised() const { return raised_.load(std::memory_order_relaxed); }
  void raise(std::exception_ptr error) noexcept {
    if (claimed_.exchange(true, std::memory_order_relaxed)) return;
    error_ = std::move(error);
    raised_.store(true, std::memory_order_release);
  }
  void rethrow_if_raised() const {
    if (raised_.load(std::memory_order_acquire)) std::rethrow_exception(error_);
  }

 private:
  std::atomic<bool> claimed_{false};
  std::atomic<bool> raised_{false};
  std::exception_ptr error_;
};

}  // namespace strake
