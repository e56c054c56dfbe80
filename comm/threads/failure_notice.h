// FailureNotice: tells every rank of a world of threads that one of them has failed, so that nobody waits
// for it for ever.
//
// Threads: any. Errors: none.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace strake::comm {

class FailureNotice {
 public:
  struct Failure {
    int rank;
    std::string reason;
  };
  // Something ranks wait at. wake() makes every waiter look at failure() again.
  class Listener {
   public:
    virtual ~Listener() = default;
    virtual void wake() = 0;
  };

  // The first failure counts, what follows from it does not.
  void raise(int rank, std::string reason) {
    const std::lock_guard lock(mutex_);
    if (first_ != nullptr) return;
    first_ = std::make_unique<const Failure>(Failure{rank, std::move(reason)});
    published_.store(first_.get(), std::memory_order_release);
    for (Listener* listener : listeners_) listener->wake();
  }
  // Null while all is well.
  const Failure* failure() const { return published_.load(std::memory_order_acquire); }

  // `listener` lives as long as this object is used.
  void add(Listener& listener) {
    const std::lock_guard lock(mutex_);
    listeners_.push_back(&listener);
  }

 private:
  std::mutex mutex_;  // taken before a listener's own
  std::unique_ptr<const Failure> first_;
  std::atomic<const Failure*> published_{nullptr};
  std::vector<Listener*> listeners_;
};

}  // namespace strake::comm
