// Rank 0 waits for a rank that fails before it trains. The test is that the job ends, with which exit code, and that
// it says why.
#include <cerrno>

#include "launch/world.h"
#include "runtime/base/error.h"

int main() {
  using namespace strake;
  return launch::run_as_rank([](std::unique_ptr<comm::Communicator>, comm::Control& control) {
    if (control.rank() == 1) throw IoError("the disk of this rank is full", "disk", ENOSPC);
    control.barrier();
    return 0;
  });
}
