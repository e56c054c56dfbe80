// WriterThread: one thread beside the training thread that does one piece of work at a time: a save, from its proof to
// its retention.
//
// Asking whether it is idle orders nothing, so that asking every step hides no missing wait between streams.
// Threads: made, used and destroyed by the training thread. Errors: wait() throws what the work threw.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>

namespace strake::checkpoint {

class WriterThread {
 public:
  WriterThread() : thread_([this] { run(); }) {}
  // Waits for the work at hand.
  ~WriterThread();
  WriterThread(const WriterThread&) = delete;
  WriterThread& operator=(const WriterThread&) = delete;

  // REQUIRES: nothing was started, or wait() has returned since.
  void start(std::function<void()> work);
  // Has what was started last ended? Relaxed.
  bool idle() const { return idle_.load(std::memory_order_relaxed); }
  // Waits until it has ended or `limit` has passed. Does not throw what it threw.
  void wait_for(std::chrono::duration<double> limit);
  // Waits until it has ended. What it did is seen here.
  void wait();

 private:
  void run();

  std::atomic<bool> idle_{true};
  std::mutex mutex_;  // of what follows
  std::condition_variable changed_;
  std::function<void()> work_;
  std::exception_ptr failure_;
  bool ending_ = false;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace strake::checkpoint
