// The contract suite for NCCL: ranks are threads of this process, each with a GPU of its own.
//
// One rank alone is a group too. What NCCL does not promise is skipped with a reason: an order of several communicators
// that differs between ranks, and a comparison of sizes.

#include <cuda_runtime_api.h>

#include "comm/nccl/nccl_communicator.h"
#include "comm/threads/threads_world.h"
#include "runtime/device/cuda/cuda_call.h"
#include "runtime/device/cuda/cuda_device.h"
#include "tests/comm/communicator_contract.h"
#include "tests/cuda/cuda_under_test.h"
#include "tests/support/gpu_ranks.h"
#include "tests/support/rank_threads.h"

namespace strake::comm {
namespace {

class CudaMachine final : public Machine {
 public:
  explicit CudaMachine(int ordinal) : cuda_(make_cuda_device(ordinal, nullptr)) {
    STRAKE_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  }
  ~CudaMachine() override { STRAKE_LOG_CUDA(cudaStreamDestroy(stream_)); }

  Device& device() override { return *cuda_; }
  void write(const Tensor& to, const void* from) override {
    copy(reinterpret_cast<void*>(to.address().value), from, to.extent_bytes());
  }
  void read(void* to, const Tensor& from) override {
    copy(to, reinterpret_cast<const void*>(from.address().value), from.extent_bytes());
  }
  std::unique_ptr<test::StreamGate> make_gate() override { return gates_.make_gate(); }

 private:
  // On a stream of its own: the rank's may be held.
  void copy(void* to, const void* from, std::size_t size_bytes) {
    STRAKE_CUDA(cudaMemcpyAsync(to, from, size_bytes, cudaMemcpyDefault, stream_));
    STRAKE_CUDA(cudaStreamSynchronize(stream_));
  }

  std::unique_ptr<Device> cuda_;
  test::GatePool gates_;
  cudaStream_t stream_ = nullptr;
};

Backend nccl_backend(int size) {
  return {.name = fmt::format("Gpus{}", size),
          .run =
              [size](const std::function<void(RankWorld&)>& rank_main) {
                ThreadsWorld world(size);
                test::run_ranks(world, [&](int rank) {
                  select_cuda_device(rank);
                  RankWorld rank_world{.rank = rank,
                                       .size = size,
                                       .make_communicator =
                                           [&world, rank] {
                                             const auto control = world.make_control(rank);
                                             return make_nccl_communicator(*control);
                                           },
                                       .make_control = [&world, rank] { return world.make_control(rank); },
                                       .make_machine = [rank] { return std::make_unique<CudaMachine>(rank); }};
                  rank_main(rank_world);
                });
              },
          .unavailable = [size] { return test::gpus_missing(size); },
          .any_order = false,
          .compares_sizes = false};
}

INSTANTIATE_TEST_SUITE_P(Nccl, CommunicatorContract, testing::Values(nccl_backend(1), nccl_backend(2)),
                         name_of_backend);

TEST(Nccl, NamesTheLibraryItRunsWith) { EXPECT_NE(nccl_version().find('.'), std::string::npos); }

}  // namespace
}  // namespace strake::comm
