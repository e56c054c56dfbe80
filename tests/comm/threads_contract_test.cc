// The contract suite for ranks as threads.
#include "comm/threads/threads_world.h"
#include "tests/comm/communicator_contract.h"
#include "tests/support/rank_threads.h"

namespace strake::comm {
namespace {

Backend threads_backend(int size) {
  return {.name = fmt::format("World{}", size), .run = [size](const std::function<void(RankWorld&)>& rank_main) {
            ThreadsWorld world(size);
            test::run_ranks(world, [&](int rank) {
              RankWorld rank_world{.rank = rank,
                                   .size = size,
                                   .make_communicator = [&world, rank] { return world.make_communicator(rank); },
                                   .make_control = [&world, rank] { return world.make_control(rank); }};
              rank_main(rank_world);
            });
          }};
}

INSTANTIATE_TEST_SUITE_P(Threads, CommunicatorContract,
                         testing::Values(threads_backend(1), threads_backend(2), threads_backend(3),
                                         threads_backend(4)),
                         name_of_backend);

}  // namespace
}  // namespace strake::comm
