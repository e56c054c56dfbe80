// SignalsBlocked: while it lives, this thread is sent no signals, and threads that it starts never are: a signal is for the
// thread that waits for it.
// Threads: of the thread that made it.
#pragma once

#include <csignal>

namespace strake {

class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_{};
};

}  // namespace strake
