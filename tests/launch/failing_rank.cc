// Rank 0 waits for a rank that fails before it trains. The test is that the job ends, with which exit code, and that
// it says why.
#include <cerrno>

#include "launch/world.h"
#include "runtime/base/error.h"

int main() {
  using namespace strake;
  return launch::run_as_rank([](launch::JobRank& rank) {
    if (rank.control.rank() == 1) throw IoError("the disk of this rank is full", "disk", ENOSPC);
    rank.control.barrier();
    return 0;
  });
}
