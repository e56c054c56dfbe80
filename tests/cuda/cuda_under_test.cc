#include "tests/cuda/cuda_under_test.h"

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <cstring>

#include "kernels/cuda/test_kernels.h"
#include "runtime/base/check.h"
#include "runtime/device/cuda/cuda_call.h"
#include "runtime/device/cuda/cuda_device.h"
#include "runtime/device/order_checker.h"
#include "tests/support/faulty_device.h"

namespace strake::test {
namespace {

// Streams beyond the number of hardware queues (8 unless told) share one, and a held stream would hold its neighbour.
// Read when CUDA starts, which is after this.
[[maybe_unused]] const int kQueuesSet = setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", /*overwrite=*/1);

// Far longer than a test holds a stream.
constexpr std::int64_t kGateLimitNs = 30'000'000'000;

cudaStream_t cuda_stream(NativeStream native) { return static_cast<cudaStream_t>(native.handle); }

template <typename T>
T* pointer(const Tensor& tensor) {
  return reinterpret_cast<T*>(tensor.address().value);
}

class CudaGate final : public StreamGate {
 public:
  explicit CudaGate(kernels::cuda::GateCell& cell) : cell_(cell) {}
  ~CudaGate() override {
    if (read(cell_.expired) != 0) ADD_FAILURE() << "a gate was never opened";
  }
  void open() override { std::atomic_ref(cell_.open).store(1, std::memory_order_relaxed); }
  bool reached() const override { return read(cell_.reached) != 0; }
  Body body() override {
    return [&cell = cell_](NativeStream native) { kernels::cuda::hold(cuda_stream(native), &cell, kGateLimitNs); };
  }

 private:
  static std::uint32_t read(std::uint32_t& word) { return std::atomic_ref(word).load(std::memory_order_relaxed); }
  kernels::cuda::GateCell& cell_;
};

class CudaUnderTest : public DeviceUnderTest {
 public:
  Device& device() override { return *cuda_; }
  // A host function must call nothing of CUDA, and others may have to wait for it: gates are kernels.
  Body host_function(std::function<void()> function) override {
    return [function = std::move(function)](NativeStream native) {
      auto* const owned = new std::function<void()>(function);
      STRAKE_CUDA(cudaLaunchHostFunc(
          cuda_stream(native),
          [](void* data) {
            const std::unique_ptr<std::function<void()>> call(static_cast<std::function<void()>*>(data));
            (*call)();
          },
          owned));
    };
  }
  std::unique_ptr<StreamGate> make_gate() override { return gates_.make_gate(); }
  Body mix(std::int64_t id, std::array<Tensor, 3> cells) override {
    return [id, cells](NativeStream native) {
      kernels::cuda::mix(cuda_stream(native), pointer<std::int64_t>(cells[0]), pointer<std::int64_t>(cells[1]),
                         pointer<std::int64_t>(cells[2]), id);
    };
  }

 private:
  std::unique_ptr<Device> cuda_ = make_cuda_device(0, nullptr);
  GatePool gates_;
};

template <typename Wrapper>
class WrappedCudaUnderTest final : public CudaUnderTest {
 public:
  template <typename... Arguments>
  explicit WrappedCudaUnderTest(Arguments... arguments) : wrapper_(CudaUnderTest::device(), arguments...) {}
  Device& device() override { return wrapper_; }

 private:
  Wrapper wrapper_;
};

}  // namespace

std::size_t free_gpu_bytes() {
  std::size_t free_bytes = 0, total_bytes = 0;
  STRAKE_CUDA(cudaMemGetInfo(&free_bytes, &total_bytes));
  return free_bytes;
}

class GateCells {
 public:
  GateCells() {
    void* memory = nullptr;
    STRAKE_CUDA(cudaHostAlloc(&memory, sizeof(Cell) * kCells, cudaHostAllocPortable | cudaHostAllocMapped));
    std::memset(memory, 0, sizeof(Cell) * kCells);
    cells_ = static_cast<Cell*>(memory);
    // A kernel's first launch loads it, which may wait for everything that runs: not while a gate is held.
    cells_[0].cell.open = 1;
    kernels::cuda::hold(nullptr, &cells_[0].cell, kGateLimitNs);
    kernels::cuda::spin(nullptr, 1);
    STRAKE_CUDA(cudaStreamSynchronize(nullptr));
  }
  ~GateCells() { STRAKE_LOG_CUDA(cudaFreeHost(cells_)); }
  GateCells(const GateCells&) = delete;
  GateCells& operator=(const GateCells&) = delete;

  kernels::cuda::GateCell& next() {
    STRAKE_CHECK(used_ < kCells, "more gates than a test has");
    return cells_[used_++].cell;
  }

 private:
  struct alignas(64) Cell {
    kernels::cuda::GateCell cell;
  };
  static constexpr std::size_t kCells = 33;  // the first is used up here
  Cell* cells_ = nullptr;
  std::size_t used_ = 1;
};

GatePool::GatePool() : cells_(std::make_unique<GateCells>()) {}
GatePool::~GatePool() = default;
std::unique_ptr<StreamGate> GatePool::make_gate() { return std::make_unique<CudaGate>(cells_->next()); }

std::unique_ptr<DeviceUnderTest> make_cuda_under_test() { return std::make_unique<CudaUnderTest>(); }
std::unique_ptr<DeviceUnderTest> make_checked_cuda_under_test() {
  return std::make_unique<WrappedCudaUnderTest<CheckedDevice>>(CheckedDevice::Policy::kThrow);
}
std::unique_ptr<DeviceUnderTest> make_faulty_cuda_under_test() {
  return std::make_unique<WrappedCudaUnderTest<FaultyDevice>>();
}

}  // namespace strake::test
