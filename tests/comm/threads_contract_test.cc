// The contract suite for ranks as threads, and for staged collectives on top of them: with chunks that hold most
// collectives whole, and with chunks so small that most are cut into many.
#include "comm/staged/staged_communicator.h"
#include "comm/threads/threads_world.h"
#include "tests/comm/communicator_contract.h"
#include "tests/support/rank_threads.h"

namespace strake::comm {
namespace {

using Wrap = std::function<std::unique_ptr<Communicator>(std::unique_ptr<Communicator>, Device&)>;

Backend backend(std::string name, int size, Wrap wrap) {
  return {
      .name = std::move(name), .run = [=](const std::function<void(RankWorld&)>& rank_main) {
        ThreadsWorld world(size);
        test::run_ranks(world, [&](int rank) {
          RankWorld rank_world{
              .rank = rank,
              .size = size,
              .make_communicator = [&, rank](Device& device) { return wrap(world.make_communicator(rank), device); },
              .make_control = [&world, rank] { return world.make_control(rank); }};
          rank_main(rank_world);
        });
      }};
}

Backend threads_backend(int size) {
  return backend(fmt::format("World{}", size), size,
                 [](std::unique_ptr<Communicator> threads, Device&) { return threads; });
}

Backend staged_backend(int size, std::int64_t chunk_bytes) {
  return backend(fmt::format("World{}Chunks{}", size, chunk_bytes), size,
                 [chunk_bytes](std::unique_ptr<Communicator> threads, Device& device) {
                   return std::make_unique<StagedCommunicator>(std::move(threads), device, chunk_bytes);
                 });
}

INSTANTIATE_TEST_SUITE_P(Threads, CommunicatorContract,
                         testing::Values(threads_backend(1), threads_backend(2), threads_backend(3)), name_of_backend);

INSTANTIATE_TEST_SUITE_P(Staged, CommunicatorContract,
                         testing::Values(staged_backend(1, 4096), staged_backend(2, StagedCommunicator::kChunkBytes),
                                         staged_backend(2, 65536), staged_backend(3, 4096)),
                         name_of_backend);

#ifndef STRAKE_SANITIZED  // a fourth rank shows sanitizers no other code, and them it takes longest
INSTANTIATE_TEST_SUITE_P(OfFourThreads, CommunicatorContract, testing::Values(threads_backend(4)), name_of_backend);
INSTANTIATE_TEST_SUITE_P(OfFourStaged, CommunicatorContract, testing::Values(staged_backend(4, 4096)), name_of_backend);
#endif

}  // namespace
}  // namespace strake::comm
