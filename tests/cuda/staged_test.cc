// The contract suite for ranks that share a GPU: processes under mpirun, as many as it has started, all on GPU 0. (Not
// threads: taking and giving back GPU memory waits for every stream of the process, also for one that waits for this
// rank.) What the CPU device cannot show: a stream of a GPU that waits for the proxy holds up no other, and abort()
// lets it go.
#include <gtest/gtest.h>

#include <latch>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "comm/mpi/mpi_world.h"
#include "comm/staged/staged_communicator.h"
#include "comm/threads/threads_world.h"
#include "tests/comm/communicator_contract.h"
#include "tests/cuda/cuda_machine.h"
#include "tests/support/gpu_ranks.h"
#include "tests/support/rank_threads.h"
#include "tests/support/thrown_by.h"
#include "tests/support/watchdog.h"

namespace strake::comm {
namespace {

MpiWorld* the_world = nullptr;  // of this process, set by main before any test runs

Backend processes(std::int64_t chunk_bytes) {
  return {.name = fmt::format("Chunks{}", chunk_bytes),
          .run =
              [chunk_bytes](const std::function<void(RankWorld&)>& rank_main) {
                select_cuda_device(0);
                RankWorld rank_world{.rank = the_world->rank(),
                                     .size = the_world->size(),
                                     .make_communicator =
                                         [chunk_bytes](Device& device) {
                                           return std::make_unique<StagedCommunicator>(the_world->make_communicator(),
                                                                                       device, chunk_bytes);
                                         },
                                     .make_control = [] { return the_world->make_control(); },
                                     .make_machine = [] { return std::make_unique<CudaMachine>(0); }};
                rank_main(rank_world);
              },
          .unavailable = [] { return test::gpus_missing(1); }};
}

INSTANTIATE_TEST_SUITE_P(OnOneGpu, CommunicatorContract,
                         testing::Values(processes(StagedCommunicator::kChunkBytes), processes(65536)),
                         name_of_backend);

// Rank 1 of two threads on GPU 0 never comes to the second collective.
TEST(StagedOnAGpu, AWaitingStreamHoldsUpNoOtherAndIsLetGo) {
  if (const std::string reason = test::gpus_missing(1); !reason.empty()) GTEST_SKIP() << reason;
  if (the_world->size() > 1) GTEST_SKIP() << "needs no launcher";
  const test::Watchdog watchdog("an aborted staged all-reduce", std::chrono::seconds(60));
  ThreadsWorld world(2);
  std::latch done(
      2);  // memory is not given up before: that waits for every stream of the process, holding up all calls
  test::run_ranks(world, [&](int rank) {
    select_cuda_device(0);
    const auto device = make_cuda_device(0, nullptr);
    Arena arena("data", MemoryKind::kDevice);
    const Tensor data = Tensor::reserve(arena, DType::kF32, {1 << 20}),
                 other = Tensor::reserve(arena, DType::kF32, {8});
    arena.allocate(*device);
    StagedCommunicator communicator(world.make_communicator(rank), *device, 65536);
    const auto comm = device->make_stream("comm", StreamPriority::kHigh);
    const auto compute = device->make_stream("compute", StreamPriority::kNormal);
    Event summed = device->make_event("summed");
    world.make_control(rank)->barrier();  // all memory is taken
    communicator.all_reduce(*comm, {"first"}, data);
    comm->synchronize();
    communicator.check();
    if (rank == 1) return done.arrive_and_wait();
    communicator.all_reduce(*comm, {"second"}, data);
    communicator.all_reduce(*comm, {"third"}, data);
    comm->record(summed);
    compute->zero({"work"}, other);
    compute->synchronize();
    EXPECT_FALSE(device->complete(summed)) << "rank 1 does not take part";
    std::thread([&] { communicator.abort(); }).join();
    comm->synchronize();
    EXPECT_TRUE(device->complete(summed));
    EXPECT_NE(test::thrown_by<CommError>([&] { communicator.check(); }).find("aborted"), std::string::npos);
    EXPECT_NE(test::thrown_by<CommError>([&] { communicator.all_reduce(*comm, {"fourth"}, data); }).find("aborted"),
              std::string::npos);
    done.arrive_and_wait();
  });
}

}  // namespace
}  // namespace strake::comm

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  strake::comm::MpiWorld world;
  strake::comm::the_world = &world;
  if (world.rank() != 0) testing::GTEST_FLAG(brief) = true;  // failures only
  return RUN_ALL_TESTS();
}
