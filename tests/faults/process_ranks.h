// ProcessRanks: ranks that are processes of their own, forked from this one, so that one of them can be killed and the
// others go on until they notice. Their control runs over sockets between each and rank 0: milliseconds a world, where
// mpirun takes a second.
//
// Threads: one that forks, in a process without others. Errors: a rank's control throws CommError when a peer has died.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <vector>

#include "comm/control.h"

namespace strake::test {

// How a process ended: by the signal, if that is not 0, or with the code.
struct ProcessEnd {
  int code = 0;
  int signal = 0;
};

class ProcessRanks {
 public:
  // Forks `ranks` processes that end with what `body` returns. It catches its own exceptions.
  ProcessRanks(int ranks, const std::function<int(int rank, comm::Control& control)>& body);
  // Kills those that are left.
  ~ProcessRanks();
  ProcessRanks(const ProcessRanks&) = delete;
  ProcessRanks& operator=(const ProcessRanks&) = delete;

  void kill(int rank);
  void kill_all();
  // Have all ended? Does not wait.
  bool ended();
  // Waits until all have ended, and kills those that have not within `limit`: of looks, which do not go by while this
  // process is stopped.
  const std::vector<ProcessEnd>& wait(std::chrono::seconds limit = std::chrono::seconds(60));

 private:
  void reap(bool block);

  std::vector<pid_t> processes_;  // 0: reaped
  std::vector<ProcessEnd> ends_;
};

}  // namespace strake::test
