// StopSignals: what the outside asks of this process. SIGUSR1 and SIGINT are requests to stop after the current step;
// a second SIGINT ends the process at once (exit status 130), other repeats change nothing, so that a checkpoint
// being written is finished. SIGHUP (the terminal is gone) is a request too, unless it was ignored (nohup). SIGTERM is
// noted apart: under a launcher it may mean that a peer has died, which only the ranks together can tell (watch.h).
//
// Signal dispositions belong to the process: at most one StopSignals exists at a time; the destructor
// restores what was there, or leaves them ignored in a process that has nothing left but to end. The signals are
// unblocked in the thread that made it. Threads: requested(), terminated(), request() from any thread; made and
// destroyed by one.
#pragma once

#include <array>
#include <csignal>
#include <string_view>

namespace strake::launch {

// "SIGINT"; of those that ask nothing, "a signal".
std::string_view name_of_signal(int signal);

class StopSignals {
 public:
  enum class After : bool { kRestore, kIgnore };
  explicit StopSignals(After after = After::kRestore);
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  // The signal that asked this rank to stop, 0: none did.
  int requested() const;
  // SIGTERM came.
  bool terminated() const;
  // Asks as `signal` would have, unless one did already.
  void request(int signal);

 private:
  static constexpr std::array kSignals{SIGUSR1, SIGINT, SIGHUP, SIGTERM};
  const After after_;
  std::array<struct sigaction, kSignals.size()> old_{};
  sigset_t old_mask_{};
};

}  // namespace strake::launch
