// StopSignals: turns SIGUSR1 and SIGINT into a request to stop after the current step. A second
// SIGINT ends the process at once (exit status 130). SIGTERM keeps its default action: under mpirun it
// means that a peer has died, and there is no time for a checkpoint.
//
// Signal dispositions belong to the process: at most one StopSignals exists at a time; the destructor
// restores what was there. Both signals are unblocked in the thread that made it. Threads: requested() from any
// thread; made and destroyed by one.
#pragma once

#include <csignal>

namespace strake::launch {

class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  // The signal that asked this rank to stop (SIGUSR1 or SIGINT), 0: none did.
  int requested() const;

 private:
  struct sigaction old_usr1_ {};
  struct sigaction old_int_ {};
  sigset_t old_mask_{};
};

}  // namespace strake::launch
