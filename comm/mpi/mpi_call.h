// What every file of the MPI backend needs: errors of MPI calls as CommError, and waiting without eating a core.
#pragma once

#include <mpi.h>

#include <algorithm>
#include <chrono>
#include <string_view>
#include <thread>

namespace strake::comm {

// REQUIRES: the communicator of the call has MPI_ERRORS_RETURN. Throws CommError with the library's text.
// `what` names the operation it was for; `peer` is a rank of the world, -1 if not known.
void check_mpi(int result, std::string_view call, std::string_view what, int peer = -1);

// The same for destructors: logs instead.
void log_mpi(int result, std::string_view call) noexcept;

// A duplicate of `parent` that returns errors. Collective.
MPI_Comm duplicate(MPI_Comm parent, std::string_view what);

// MPI moves nothing on its own: it progresses inside MPI_Test. Calls `done` until it holds, first without a
// pause, for what is nearly there, then with a short sleep that grows, so that a wait costs a few percent of
// a core while the program computes.
template <typename Done>
void poll_until(Done done) {
  using Clock = std::chrono::steady_clock;
  constexpr std::chrono::microseconds kSpin{30};
  constexpr std::chrono::microseconds kFirstPause{20};
  constexpr std::chrono::microseconds kLongestPause{100};
  const Clock::time_point spin_end = Clock::now() + kSpin;
  do {
    if (done()) return;
  } while (Clock::now() < spin_end);
  for (auto pause = kFirstPause;; pause = std::min(kLongestPause, pause * 3 / 2)) {
    std::this_thread::sleep_for(pause);
    if (done()) return;
  }
}

}  // namespace strake::comm
