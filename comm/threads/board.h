// Board: where the ranks of a group of threads meet. In each round every rank posts one note and can then
// collect the notes of all; nobody collects before all have posted, so a round is also a barrier.
//
// Threads: each rank uses it from one thread at a time. Its mutex is taken by the ranks of the group for
// this one purpose, so it orders nothing but the meeting itself: ThreadSanitizer still sees missing waits.
// Errors: CommError naming the rank that has failed, or has left before posting.
#pragma once

#include <fmt/format.h>

#include <array>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string_view>
#include <utility>
#include <vector>

#include "comm/threads/failure_notice.h"
#include "runtime/base/error.h"

namespace strake::comm {

enum class OnFailure : bool { kThrow, kFinish };

template <typename Note>
class Board final : public FailureNotice::Listener {
 public:
  Board(FailureNotice& notice, std::vector<int> world_ranks)
      : notice_(notice),
        world_ranks_(std::move(world_ranks)),
        posted_(world_ranks_.size()),
        left_(world_ranks_.size()) {
    for (Round& round : rounds_) round.notes.resize(world_ranks_.size());
    notice_.add(*this);
  }

  // Starts the next round of `rank`. Does not wait. `what` is for messages.
  // REQUIRES: the notes of the previous round were collected.
  void post(int rank, Note note, std::string_view what, OnFailure on_failure = OnFailure::kThrow) {
    const auto me = static_cast<std::size_t>(rank);
    const std::lock_guard lock(mutex_);
    if (on_failure == OnFailure::kThrow) throw_if_failed(me, what);
    const std::int64_t number = posted_[me]++;
    Round& round = rounds_[static_cast<std::size_t>(number % 2)];
    if (round.number != number) round = {.number = number, .posts = 0, .notes = std::move(round.notes)};
    round.notes[me] = std::move(note);
    if (++round.posts == world_ranks_.size()) changed_.notify_all();
  }

  // The notes of the round that `rank` posted last, by group rank; valid until it posts again. A round that
  // all have posted is handed out even after a failure, and one that a rank gave up is never completed:
  // either every rank gets past it or none. With OnFailure::kFinish, failures are ignored: for a round
  // that every rank is certain to reach.
  const std::vector<Note>& collect(int rank, std::string_view what, OnFailure on_failure = OnFailure::kThrow) {
    const auto me = static_cast<std::size_t>(rank);
    std::unique_lock lock(mutex_);
    const std::int64_t number = posted_[me] - 1;
    // Two rounds are enough: a rank that posts round n + 2 has collected round n + 1, which this rank must
    // have posted, after it was done with round n.
    const Round& round = rounds_[static_cast<std::size_t>(number % 2)];
    while (round.posts != world_ranks_.size()) {
      if (on_failure == OnFailure::kThrow) {
        throw_if_failed(me, what);
        if (const int gone = first_gone(number); gone >= 0) {
          // A failure of its own: what this rank fails at next must not hide whose fault it was.
          lock.unlock();  // the notice wakes this board
          notice_.raise(gone, fmt::format("it has left, without '{}'", what));
          throw_if_failed(me, what);
        }
      }
      changed_.wait(lock);
    }
    return round.notes;
  }

  // `rank` will not post again: who waits for it fails.
  void leave(int rank) {
    const std::lock_guard lock(mutex_);
    left_[static_cast<std::size_t>(rank)] = true;
    changed_.notify_all();
  }

  void wake() override {
    const std::lock_guard lock(mutex_);
    changed_.notify_all();
  }

 private:
  struct Round {
    std::int64_t number = -1;
    std::size_t posts = 0;
    std::vector<Note> notes;
  };

  void throw_if_failed(std::size_t me, std::string_view what) const {
    if (const FailureNotice::Failure* failure = notice_.failure()) {
      throw CommError(fmt::format("'{}' on rank {}: rank {} has failed ({})", what, world_ranks_[me], failure->rank,
                                  failure->reason),
                      failure->rank);
    }
  }
  // The world rank of a rank that will not post round `number` any more; -1 if there is none.
  int first_gone(std::int64_t number) const {
    for (std::size_t peer = 0; peer < left_.size(); ++peer) {
      if (left_[peer] && posted_[peer] <= number) return world_ranks_[peer];
    }
    return -1;
  }

  FailureNotice& notice_;
  const std::vector<int> world_ranks_;  // by group rank
  std::mutex mutex_;
  std::condition_variable changed_;
  std::array<Round, 2> rounds_;
  std::vector<std::int64_t> posted_;  // rounds, by group rank
  std::vector<bool> left_;
};

}  // namespace strake::comm
