#include "launch/signals.h"

#include <unistd.h>

#include <atomic>

#include "runtime/base/check.h"

namespace strake::launch {
namespace {

// A handler can reach only what has static storage.
std::atomic<int> requested_signal{0};
std::atomic<int> interrupts{0};
std::atomic<bool> installed{false};
static_assert(std::atomic<int>::is_always_lock_free, "async-signal-safe");

void on_signal(int signal) {
  if (signal == SIGINT && interrupts.fetch_add(1, std::memory_order_relaxed) > 0) _exit(128 + SIGINT);
  requested_signal.store(signal, std::memory_order_relaxed);
}

}  // namespace

StopSignals::StopSignals() {
  STRAKE_CHECK(!installed.exchange(true), "one StopSignals at a time");
  requested_signal = 0;
  interrupts = 0;
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;  // a checkpoint being written must not see EINTR
  sigemptyset(&action.sa_mask);
  sigaction(SIGUSR1, &action, &old_usr1_);
  sigaction(SIGINT, &action, &old_int_);
  // Whoever started us may have had them blocked, and that is inherited.
  sigset_t ours;
  sigemptyset(&ours);
  sigaddset(&ours, SIGUSR1);
  sigaddset(&ours, SIGINT);
  pthread_sigmask(SIG_UNBLOCK, &ours, &old_mask_);
}

StopSignals::~StopSignals() {
  pthread_sigmask(SIG_SETMASK, &old_mask_, nullptr);
  sigaction(SIGUSR1, &old_usr1_, nullptr);
  sigaction(SIGINT, &old_int_, nullptr);
  installed = false;
}

int StopSignals::requested() const { return requested_signal.load(std::memory_order_relaxed); }

}  // namespace strake::launch
