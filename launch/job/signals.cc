#include "launch/job/signals.h"

#include <unistd.h>

#include <atomic>

#include "runtime/base/check.h"

namespace strake::launch {
namespace {

// A handler can reach only what has static storage.
std::atomic<int> requested_signal{0};
std::atomic<int> interrupts{0};
std::atomic<bool> termination{false};
std::atomic<bool> installed{false};
static_assert(std::atomic<int>::is_always_lock_free, "async-signal-safe");

void on_signal(int signal) {
  if (signal == SIGTERM) return termination.store(true, std::memory_order_relaxed);
  if (signal == SIGINT && interrupts.fetch_add(1, std::memory_order_relaxed) > 0) _exit(128 + SIGINT);
  int none = 0;
  requested_signal.compare_exchange_strong(none, signal, std::memory_order_relaxed);
}

}  // namespace

std::string_view name_of_signal(int signal) {
  switch (signal) {
    case SIGUSR1:
      return "SIGUSR1";
    case SIGINT:
      return "SIGINT";
    case SIGHUP:
      return "SIGHUP";
    case SIGTERM:
      return "SIGTERM";
    default:
      return "a signal";
  }
}

StopSignals::StopSignals(After after) : after_(after) {
  STRAKE_CHECK(!installed.exchange(true), "one StopSignals at a time");
  requested_signal = 0;
  interrupts = 0;
  termination = false;
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;  // a checkpoint being written must not see EINTR
  sigemptyset(&action.sa_mask);
  sigset_t ours;
  sigemptyset(&ours);
  for (std::size_t i = 0; i < kSignals.size(); ++i) {
    sigaction(kSignals[i], &action, &old_[i]);
    if (kSignals[i] == SIGHUP && old_[i].sa_handler == SIG_IGN) sigaction(SIGHUP, &old_[i], nullptr);
    sigaddset(&ours, kSignals[i]);
  }
  // Whoever started us may have had them blocked, and that is inherited.
  pthread_sigmask(SIG_UNBLOCK, &ours, &old_mask_);
}

StopSignals::~StopSignals() {
  pthread_sigmask(SIG_SETMASK, &old_mask_, nullptr);
  struct sigaction ignored {};
  ignored.sa_handler = SIG_IGN;
  for (std::size_t i = 0; i < kSignals.size(); ++i) {
    sigaction(kSignals[i], after_ == After::kRestore ? &old_[i] : &ignored, nullptr);
  }
  installed = false;
}

int StopSignals::requested() const { return requested_signal.load(std::memory_order_relaxed); }

bool StopSignals::terminated() const { return termination.load(std::memory_order_relaxed); }

void StopSignals::request(int signal) {
  int none = 0;
  requested_signal.compare_exchange_strong(none, signal, std::memory_order_relaxed);
}

}  // namespace strake::launch
