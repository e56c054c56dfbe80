// RankEnvironment: how this process was started, read from the environment before MPI is up. For
// messages that come early and for choosing a device; the truth about ranks is the Communicator's.
// Threads: a value. Errors: none; a variable that is not a number counts as absent.
#pragma once

#include <string>

namespace strake::launch {

struct RankEnvironment {
  enum class Launcher { kPlain, kMpirun, kSrun } launcher = Launcher::kPlain;
  int rank = 0;
  int ranks = 1;
  int local_rank = 0;  // among the ranks of this machine
  int local_ranks = 1;

  bool under_launcher() const { return launcher != Launcher::kPlain; }
  std::string launcher_name() const;

  static RankEnvironment detect();
};

// Cores that a rank can keep busy while its peers on this machine do the same: those that it may run on, but no more
// than its share of the `online` ones. The launcher may have bound it to few, or several ranks to the same ones, or
// none.
int share_of_cores(int local_ranks, int may_run_on, int online);
// The same, of this process.
int usable_cores(const RankEnvironment& environment);

// What people must be told if the launcher's environment speaks of more ranks than MPI has found, `world_size`; empty
// if all are here. Then nobody has brought the ranks together, and each would train alone, in the same run folder.
std::string missing_ranks(int world_size);

}  // namespace strake::launch
