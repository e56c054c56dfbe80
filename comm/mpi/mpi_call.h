// What every file of the MPI backend needs: errors of MPI calls as CommError, and waiting without eating a core.
#pragma once

#include <mpi.h>

#include <algorithm>
#include <chrono>
#include <string_view>

namespace strake::comm {

// REQUIRES: the communicator of the call has MPI_ERRORS_RETURN. Throws CommError with the library's text.
// `what` names the operation it was for; `peer` is a rank of the world, -1 if not known.
void check_mpi(int result, std::string_view call, std::string_view what, int peer = -1);

// The same for destructors: logs instead.
void log_mpi(int result, std::string_view call) noexcept;

// A duplicate of `parent` that returns errors. Collective.
MPI_Comm duplicate(MPI_Comm parent, std::string_view what);

// Sleeps, and is late by some microseconds only (by default the kernel adds fifty).
void sleep_precisely(std::chrono::nanoseconds duration);

// MPI moves nothing on its own: it progresses inside MPI_Test. Calls `done` until it holds, first without a
// pause, for what is nearly there, then with pauses that grow with the time waited so far: what is late is
// seen at most an eighth later, and a long wait costs a few percent of a core while the program computes.
template <typename Done>
void poll_until(Done done) {
  using Clock = std::chrono::steady_clock;
  using std::chrono::microseconds;
  constexpr microseconds kSpin{50};
  constexpr microseconds kShortestPause{20};
  constexpr microseconds kLongestPause{500};
  const Clock::time_point begin = Clock::now();
  while (!done()) {
    const Clock::duration waited = Clock::now() - begin;
    if (waited < kSpin) continue;
    sleep_precisely(std::clamp<Clock::duration>(waited / 8, kShortestPause, kLongestPause));
  }
}

}  // namespace strake::comm
