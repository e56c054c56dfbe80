// Rank 0 waits for a rank that fails before it trains: on its disk, or (argument "mistake") in the program itself. The
// test is that the job ends, with which exit code, and that it says why.
#include <cerrno>
#include <string_view>

#include "launch/job/world.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"

int main(int argc, char** argv) {
  using namespace strake;
  const bool mistake = argc > 1 && std::string_view(argv[1]) == "mistake";
  return launch::run_as_rank([mistake](launch::JobRank& rank) {
    STRAKE_CHECK(!mistake || rank.control.rank() != 1, "a rank took a wrong turn");
    if (rank.control.rank() == 1) throw IoError("the disk of this rank is full", "disk", ENOSPC);
    rank.control.barrier();
    return 0;
  });
}
