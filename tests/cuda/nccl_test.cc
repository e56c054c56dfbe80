// The contract suite for NCCL: ranks are threads of this process, each with a GPU of its own.
//
// One rank alone is a group too. What NCCL does not promise is skipped with a reason: an order of several communicators
// that differs between ranks, and a comparison of sizes.

#include <cuda_runtime_api.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <thread>

#include "comm/nccl/nccl_communicator.h"
#include "comm/registered_memory.h"
#include "comm/threads/threads_world.h"
#include "runtime/device/cuda/cuda_call.h"
#include "runtime/device/cuda/cuda_device.h"
#include "tests/comm/communicator_contract.h"
#include "tests/cuda/cuda_machine.h"
#include "tests/cuda/cuda_under_test.h"
#include "tests/support/gpu_ranks.h"
#include "tests/support/rank_threads.h"
#include "tests/support/thrown_by.h"
#include "tests/support/watchdog.h"

namespace strake::comm {
namespace {

Backend nccl_backend(int size, const NcclOptions& options = {}, const std::string& name = "") {
  const GpuMemorySource memory = options.buffers == NcclOptions::Buffers::kPlain ? cuda_memory() : nccl_memory();
  return {.name = fmt::format("{}Gpus{}", name, size),
          .run =
              [=](const std::function<void(RankWorld&)>& rank_main) {
                ThreadsWorld world(size);
                test::run_ranks(world, [&](int rank) {
                  select_cuda_device(rank);
                  RankWorld rank_world{.rank = rank,
                                       .size = size,
                                       .make_communicator =
                                           [&world, rank, options](Device&) {
                                             const auto control = world.make_control(rank);
                                             return make_nccl_communicator(*control, options);
                                           },
                                       .make_control = [&world, rank] { return world.make_control(rank); },
                                       .make_machine = [=] { return std::make_unique<CudaMachine>(rank, memory); }};
                  rank_main(rank_world);
                });
              },
          .unavailable = [size] { return test::gpus_missing(size); },
          .any_order = false,
          .compares_sizes = false};
}

INSTANTIATE_TEST_SUITE_P(Nccl, CommunicatorContract, testing::Values(nccl_backend(1), nccl_backend(2)),
                         name_of_backend);

// However many multiprocessors collectives take, and whosever memory they use: the same sums, the same order.
using Buffers = NcclOptions::Buffers;
INSTANTIATE_TEST_SUITE_P(
    NcclSwitches, CommunicatorContract,
    testing::Values(nccl_backend(2, {.max_ctas = 2}, "FewCtas"),
                    nccl_backend(2, {.min_ctas = 4, .max_ctas = 4}, "FourCtas"),
                    nccl_backend(2, {.buffers = Buffers::kRegistered}, "Registered"),
                    nccl_backend(1, {.buffers = Buffers::kSymmetric}, "Symmetric"),
                    nccl_backend(2, {.buffers = Buffers::kSymmetric}, "Symmetric"),
                    nccl_backend(2, {.max_ctas = 4, .buffers = Buffers::kSymmetric}, "SymmetricFewCtas"),
                    nccl_backend(2, {.buffers = Buffers::kSymmetric, .copy_engines = true}, "CopyEngines")),
    name_of_backend);

// Rank 1 of two never comes to a collective that rank 0 has enqueued, or to the group.
class NcclWithoutAPeer : public testing::Test {
 protected:
  struct Rank {
    Rank(ThreadsWorld& world, int rank, const NcclOptions& options = {})
        : control(world.make_control(rank)),
          device(make_cuda_device(rank, nullptr,
                                  options.buffers == NcclOptions::Buffers::kPlain ? cuda_memory() : nccl_memory())),
          communicator(make_nccl_communicator(*control, options)),
          registered(*communicator),
          stream(device->make_stream("comm", StreamPriority::kHigh)),
          data(Tensor::reserve(arena, DType::kF32, {1 << 20})),
          done(device->make_event("all-reduced")) {
      arena.allocate(*device);
      registered.add(arena);
    }
    void all_reduce() {
      communicator->all_reduce(*stream, {"gradients"}, data);
      stream->record(done);
    }

    std::unique_ptr<Control> control;
    std::unique_ptr<Device> device;
    Arena arena{"data", MemoryKind::kDevice};
    std::unique_ptr<Communicator> communicator;
    RegisteredMemory registered;
    std::unique_ptr<Stream> stream;
    Tensor data;
    Event done;
  };

  void SetUp() override {
    if (const std::string reason = test::gpus_missing(2); !reason.empty()) GTEST_SKIP() << reason;
  }
  static void expect_aborted(const std::function<void()>& call) {
    const std::string said = test::thrown_by<CommError>(call);
    EXPECT_NE(said.find("aborted"), std::string::npos) << said;
  }
};

// Registered memory is forgotten behind it all the same. (Between symmetric buffers nothing ends a collective.)
class AbortedWithMemory : public NcclWithoutAPeer, public testing::WithParamInterface<NcclOptions::Buffers> {};
INSTANTIATE_TEST_SUITE_P(NcclBuffers, AbortedWithMemory, testing::Values(Buffers::kPlain, Buffers::kRegistered),
                         [](const auto& buffers) { return buffers.param == Buffers::kPlain ? "Plain" : "Registered"; });

TEST_P(AbortedWithMemory, ACollectiveInFlightIsEndedByAbort) {
  const test::Watchdog watchdog("an aborted all-reduce", std::chrono::seconds(60));
  ThreadsWorld world(2);
  test::run_ranks(world, [&](int rank) {
    select_cuda_device(rank);
    Rank mine(world, rank, {.buffers = GetParam()});
    mine.all_reduce();  // connects the ranks
    mine.stream->synchronize();
    mine.communicator->check();
    mine.control->barrier();
    if (rank == 0) {
      mine.all_reduce();
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
      EXPECT_FALSE(mine.device->complete(mine.done)) << "rank 1 does not take part";
      std::thread([&] { mine.communicator->abort(); }).join();
      mine.stream->synchronize();  // the stream goes on
      EXPECT_TRUE(mine.device->complete(mine.done));
      expect_aborted([&] { mine.communicator->check(); });
      expect_aborted([&] { mine.all_reduce(); });
      mine.communicator->abort();  // once more is nothing
    }
    mine.control->barrier();  // rank 1's memory stays until nobody reaches for it
    if (rank == 1) mine.communicator->abort();
  });
}

// With a collective that nobody ends in flight, abort() comes back all the same, and leaves a communicator of no use.
TEST_F(NcclWithoutAPeer, AnAbortBetweenSymmetricBuffersWaitsForNobody) {
  const test::Watchdog watchdog("an abort between symmetric buffers", std::chrono::seconds(60));
  ThreadsWorld world(2);
  test::run_ranks(world, [&](int rank) {
    select_cuda_device(rank);
    Rank mine(world, rank, {.buffers = Buffers::kSymmetric});
    mine.all_reduce();
    mine.stream->synchronize();
    mine.control->barrier();
    if (rank == 0) {
      mine.all_reduce();
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
      std::thread([&] { mine.communicator->abort(); }).join();
      EXPECT_FALSE(mine.device->complete(mine.done)) << "rank 1 does not take part";
      expect_aborted([&] { mine.communicator->check(); });
      expect_aborted([&] { mine.all_reduce(); });
    }
    mine.control->barrier();
    if (rank == 1) mine.all_reduce();  // which rank 0 still waits for
    mine.stream->synchronize();
    mine.control->barrier();
    if (rank == 1) mine.communicator->abort();
  });
}

// The first collective connects the ranks, which the call waits for.
TEST_F(NcclWithoutAPeer, ACallThatWaitsIsEndedByAbort) {
  const test::Watchdog watchdog("an aborted first all-reduce", std::chrono::seconds(60));
  ThreadsWorld world(2);
  test::run_ranks(world, [&](int rank) {
    select_cuda_device(rank);
    Rank mine(world, rank);
    if (rank == 0) {
      std::thread last_resort([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(500));
        mine.communicator->abort();
      });
      // The call may also have enqueued everything at once and returned: then it is the stream that waits.
      const std::string said = test::thrown_by<CommError>([&] { mine.all_reduce(); });
      last_resort.join();
      EXPECT_TRUE(said == "nothing" || said.find("aborted") != std::string::npos) << said;
      mine.stream->synchronize();
      expect_aborted([&] { mine.communicator->check(); });
    }
    mine.control->barrier();
    if (rank == 1) mine.communicator->abort();
  });
}

TEST_F(NcclWithoutAPeer, AGroupThatDoesNotMeetIsGivenUp) {
  const test::Watchdog watchdog("a group that does not meet", std::chrono::seconds(60));
  ThreadsWorld world(2);
  test::run_ranks(world, [&](int rank) {
    select_cuda_device(rank);
    const auto control = world.make_control(rank);
    if (rank == 0) {
      const std::string said =
          test::thrown_by<CommError>([&] { make_nccl_communicator(*control, {}, std::chrono::seconds(2)); });
      EXPECT_NE(said.find("2 ranks have not found each other"), std::string::npos) << said;
    } else {
      control->broadcast({}, 0);  // of the id: and then nothing
    }
    control->barrier();
  });
}

// Ranks are processes of this program, started with an environment that leaves NCCL no way but sockets, as between
// hosts: only there it notices that a peer has died.
constexpr const char* kChildRank = "STRAKE_NCCL_TEST_RANK";

// The id from rank 0 to rank 1 through a pipe, and rank 0's word that it waits to the test.
class PipeControl final : public Control {
 public:
  PipeControl(int rank, int from, int to) : rank_(rank), from_(from), to_(to) {}
  int rank() const override { return rank_; }
  int size() const override { return 2; }
  void post(std::span<const double>) override {}
  std::vector<double> finish() override { return {}; }
  void barrier() override {}
  std::vector<std::string> all_gather(std::string_view) override { return {}; }
  std::string broadcast(std::string_view text, int) override {
    if (rank_ == 0) {
      EXPECT_EQ(::write(to_, text.data(), text.size()), static_cast<ssize_t>(text.size()));
      return std::string(text);
    }
    std::string come(sizeof(char) * 128, 0);  // an ncclUniqueId
    EXPECT_EQ(::read(from_, come.data(), come.size()), static_cast<ssize_t>(come.size()));
    return come;
  }
  std::unique_ptr<Control> duplicate() override { return nullptr; }
  void abort(int) override {}

 private:
  int rank_, from_, to_;
};

constexpr int kIdRead = 20, kIdWrite = 21, kWordWrite = 22;  // descriptors of the children

// Not a test by itself: what the children of the next one run.
TEST(NcclChild, DISABLED_Rank) {
  const char* text = std::getenv(kChildRank);
  ASSERT_NE(text, nullptr);
  const int rank = std::atoi(text);
  select_cuda_device(rank);
  PipeControl control(rank, kIdRead, kIdWrite);
  const auto device = make_cuda_device(rank, nullptr);
  Arena arena("data", MemoryKind::kDevice);
  const Tensor data = Tensor::reserve(arena, DType::kF32, {1 << 20});
  arena.allocate(*device);
  const auto communicator = make_nccl_communicator(control, {}, std::chrono::seconds(60));
  const auto stream = device->make_stream("comm", StreamPriority::kHigh);
  communicator->all_reduce(*stream, {"first"}, data);
  stream->synchronize();
  if (rank == 1) {
    for (;;) pause();  // until it is killed
  }
  communicator->all_reduce(*stream, {"second"}, data);
  communicator->check();
  ASSERT_EQ(::write(kWordWrite, "w", 1), 1);
  std::string said = "nothing";
  EXPECT_TRUE(test::wait_until([&] {
    said = test::thrown_by<CommError>([&] { communicator->check(); });
    return said != "nothing";
  })) << "the peer's death was not noticed";
  std::printf("noticed: %s\n", said.c_str());
  communicator->abort();
  stream->synchronize();
}

TEST_F(NcclWithoutAPeer, AKilledPeerIsNoticedOverSockets) {
  int id[2], word[2];
  ASSERT_EQ(::pipe2(id, O_CLOEXEC), 0);
  ASSERT_EQ(::pipe2(word, O_CLOEXEC), 0);
  std::array<pid_t, 2> ranks{};
  for (int rank = 0; rank < 2; ++rank) {
    std::vector<std::string> environment = {std::string(kChildRank) + "=" + std::to_string(rank),
                                            "NCCL_HOSTID=host" + std::to_string(rank),
                                            "NCCL_P2P_DISABLE=1",
                                            "NCCL_SHM_DISABLE=1",
                                            "NCCL_IB_DISABLE=1",
                                            "NCCL_SOCKET_IFNAME=lo"};
    for (char** variable = environ; *variable != nullptr; ++variable) environment.emplace_back(*variable);
    std::vector<char*> variables;
    for (std::string& variable : environment) variables.push_back(variable.data());
    variables.push_back(nullptr);
    std::string name = "cuda_device_tests", filter = "--gtest_filter=NcclChild.DISABLED_Rank",
                all = "--gtest_also_run_disabled_tests";
    char* const arguments[] = {name.data(), filter.data(), all.data(), nullptr};
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {  // only calls that are allowed between fork and exec
      ::dup2(id[0], kIdRead);
      ::dup2(id[1], kIdWrite);
      ::dup2(word[1], kWordWrite);
      ::execve("/proc/self/exe", arguments, variables.data());
      ::_exit(127);
    }
    ranks[static_cast<std::size_t>(rank)] = child;
  }
  ::close(word[1]);
  char said = 0;
  EXPECT_EQ(::read(word[0], &said, 1), 1) << "rank 0 ended before it waited";
  ::kill(ranks[1], SIGKILL);
  int status = 0;
  EXPECT_TRUE(test::wait_until([&] { return ::waitpid(ranks[0], &status, WNOHANG) != 0; }));
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "rank 0 ended with status " << status;
  ::kill(ranks[0], SIGKILL);
  ::waitpid(ranks[1], &status, 0);
  for (const int descriptor : {id[0], id[1], word[0]}) ::close(descriptor);
}

TEST(Nccl, NamesTheLibraryItRunsWith) {
  EXPECT_NE(nccl_version().find('.'), std::string::npos);
  EXPECT_GE(nccl_usable_version(), kNcclWithRegistration);
}

// Whatever the environment says: ctest runs it with NCCL_NVLS_ENABLE=1 too.
TEST(Nccl, MulticastStaysOff) { EXPECT_STREQ(std::getenv("NCCL_NVLS_ENABLE"), "0"); }

// Of a communicator that is used on: registering again is as the first time, also at another address.
TEST_F(NcclWithoutAPeer, MemoryIsRegisteredAgainAndAgain) {
  const test::Watchdog watchdog("memory that comes and goes", std::chrono::seconds(120));
  for (const Buffers buffers : {Buffers::kRegistered, Buffers::kSymmetric}) {
    ThreadsWorld world(2);
    test::run_ranks(world, [&](int rank) {
      select_cuda_device(rank);
      Rank mine(world, rank, {.buffers = buffers});
      for (int run = 0; run < 5; ++run) {
        Arena arena("for a while", MemoryKind::kDevice);
        const Tensor data = Tensor::reserve(arena, DType::kF32, {(std::int64_t{1} << 20) * (run % 3 + 1)});
        arena.allocate(*mine.device);
        RegisteredMemory registered(*mine.communicator);
        registered.add(arena);
        mine.communicator->all_reduce(*mine.stream, {"sum"}, data);
        mine.stream->synchronize();
        mine.communicator->check();
        mine.control->barrier();  // nobody's memory goes while the other one still reads it
      }
    });
  }
}

}  // namespace
}  // namespace strake::comm
