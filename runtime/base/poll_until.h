// poll_until: waiting for what nobody can wake this thread for (a message that moves only when asked for, a word that a
// GPU writes), without eating a core.
// Threads: any. Errors: what `done` throws.
#pragma once

#include <algorithm>
#include <chrono>

namespace strake {

// Sleeps, and is late by some microseconds only (by default the kernel adds fifty).
void sleep_precisely(std::chrono::nanoseconds duration);

// Calls `done` until it holds, first without a pause, for what is nearly there, then with pauses that grow with the
// time waited so far: what is late is seen at most an eighth later, and a long wait costs a few percent of a core while
// the program computes.
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

}  // namespace strake
