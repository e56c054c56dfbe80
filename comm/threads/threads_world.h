// ThreadsWorld: ranks that are threads of one process. Every number of ranks can be tested in one process and
// under ThreadSanitizer; a world of one is the plain launch of a single rank, on any device.
//
// The collective of a rank runs on its communication stream's worker and meets its peers' there: each rank
// reads its peers' buffers directly, reduces its own piece and writes it to all. It needs no memory of its own.
//
// When a rank fails, ranks that wait for it throw CommError naming it. A rank has failed when it says so
// (Control::abort, fail) or when a collective of its streams fails or is dropped by a poisoned device. A rank
// that destroys its communicator or control while others still wait for it has left. A rank that fails on
// its host must call abort before it destroys its streams, which wait for what is queued.
//
// Threads: make_* by the rank's thread; fail by any. The world outlives what it made.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "comm/communicator.h"
#include "comm/control.h"
#include "comm/threads/failure_notice.h"

namespace strake::comm {

class ThreadsGroup;

class ThreadsWorld {
 public:
  explicit ThreadsWorld(int size);
  ~ThreadsWorld();
  ThreadsWorld(const ThreadsWorld&) = delete;
  ThreadsWorld& operator=(const ThreadsWorld&) = delete;

  int size() const { return size_; }

  // The n-th communicator of every rank is of one group, and likewise controls: each call is independent of
  // what was made before. Does not wait for the other ranks.
  std::unique_ptr<Communicator> make_communicator(int rank);
  std::unique_ptr<Control> make_control(int rank);

  // Marks `rank` as failed, for the first reason given.
  void fail(int rank, std::string reason);

  // For the communicators of this world: the group of that name, made by whoever asks first.
  // REQUIRES: equal `world_ranks` from all who ask for a name.
  ThreadsGroup& group(const std::string& name, const std::vector<int>& world_ranks);

 private:
  std::string next_name(std::string_view what, std::vector<int>& made, int rank);

  const int size_;
  std::vector<int> all_ranks_;
  FailureNotice notice_;
  std::mutex mutex_;                     // of what follows; not taken while a board's is held
  std::vector<int> communicators_made_;  // by rank
  std::vector<int> controls_made_;
  std::map<std::string, std::unique_ptr<ThreadsGroup>> groups_;
};

}  // namespace strake::comm
