#include "checkpoint/writer_thread.h"

#include <utility>

#include "runtime/base/check.h"

namespace strake::checkpoint {

WriterThread::~WriterThread() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void WriterThread::start(std::function<void()> work) {
  {
    const std::lock_guard lock(mutex_);
    STRAKE_CHECK(work_ == nullptr && failure_ == nullptr, "one piece of work at a time");
    work_ = std::move(work);
    idle_.store(false, std::memory_order_relaxed);
  }
  changed_.notify_all();
}

void WriterThread::wait_for(std::chrono::duration<double> limit) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, limit, [this] { return work_ == nullptr; });
}

void WriterThread::wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return work_ == nullptr; });
  if (failure_ != nullptr) std::rethrow_exception(std::exchange(failure_, nullptr));
}

void WriterThread::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return work_ != nullptr || ending_; });
    if (work_ == nullptr) return;
    lock.unlock();
    std::exception_ptr failure;
    try {
      work_();
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    failure_ = std::move(failure);
    work_ = nullptr;
    idle_.store(true, std::memory_order_relaxed);
    changed_.notify_all();
  }
}

}  // namespace strake::checkpoint
