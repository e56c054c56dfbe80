// StreamClocks: which operations are surely behind which others, from what streams were asked to do.
//
// Vector clocks (Lamport 1978; Fidge and Mattern 1988), one for each stream and one for the host: of every stream, how
// many of its operations have surely run. Launching takes the next number of its stream; a record keeps the clock of
// its stream, which a wait joins into another and a host synchronisation into the host; what is enqueued later is
// behind all that the host knows. Nothing is executed or timed.
// Threads: one at a time.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

namespace strake {

// Of each stream, how many operations; of streams past the end, none.
using Clock = std::vector<std::uint32_t>;

// One operation, or none.
struct Moment {
  int stream = -1;
  std::uint32_t number = 0;  // on its stream, from 1
};

// Is `earlier` among the operations that `now` is behind?
bool ordered(const Moment& earlier, const Clock& now);

class StreamClocks {
 public:
  // The next operation of `stream`.
  Moment launch(int stream);
  // What the operations of `stream` that come next are behind. A record keeps a copy.
  const Clock& now(int stream);
  void wait(int stream, const Clock& recorded) { join(at(stream), recorded); }
  // The host has waited for what `reached` is behind.
  void synchronize(const Clock& reached) { join(host_, reached); }

 private:
  static void join(Clock& into, const Clock& from);
  Clock& at(int stream);

  std::deque<Clock> streams_;  // references that now() gave stay valid
  Clock host_;
};

}  // namespace strake
