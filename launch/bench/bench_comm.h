// `strake bench comm`: how fast the ranks' collectives are, size by size, and whether their results are right: alone,
// under mpirun on one host or several, or as threads of one process.
//
// A collective is timed by marks around it on its stream, enqueued back to back; the figure is the median of the rank
// whose median is largest. Before it is timed, each is run once on values whose result is known, and all of that is
// compared.
// With --beside a matrix product is timed on a stream of its own while collectives run back to back, and they while it
// does: what counts are products that lie between the first and the last of them, and those of them that lie between
// the first and the last product. Threads: the main thread, and one for each rank that is a thread. Errors: as `strake
// train`; wrong results end it with ExitCode::kFailure, behind the table.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "comm/control.h"
#include "launch/bench/comm_figures.h"
#include "launch/bench/product_beside.h"
#include "launch/job/watch.h"
#include "runtime/base/dtype.h"
#include "runtime/device/device.h"

namespace strake::launch {

struct BenchCommArguments {
  std::vector<std::string> overrides;  // run.device, comm.backend, run.hang_s, ...
  std::vector<std::string> command_line;
  std::vector<Collective> collectives{kCollectives.begin(), kCollectives.end()};
  std::int64_t least_bytes = std::int64_t{1} << 10;
  std::int64_t most_bytes = std::int64_t{1} << 30;
  std::int64_t factor = 4;
  std::int64_t warmup = 3;
  std::int64_t iterations = 20;  // at most
  double seconds = 5;            // of all iterations of a size; at least three are made
  DType dtype = DType::kF32;
  // Timed beside the collectives of each size, and they beside it; none: not.
  std::optional<ProductShape> beside = {};
  int spared_multiprocessors = 0;  // by that product: comm.spare_sms
  std::int64_t threads = 0;        // ranks as threads of this process, on the CPU; 0: as they were started
  bool json = false;
};

// Measures and checks, as one rank of `control`, and returns the figures of all. Collective.
std::vector<CommFigure> measure_collectives(const BenchCommArguments& arguments, Device& device,
                                            comm::Communicator& communicator, comm::Control& control,
                                            RankWatch* watch = nullptr);  // null: nobody notices hangs

// Returns the exit code.
int run_bench_comm(const BenchCommArguments& arguments);

}  // namespace strake::launch
