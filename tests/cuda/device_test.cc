// The CUDA device: the contract of every device, and what it promises beyond.

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <thread>

#include "kernels/cuda/test_kernels.h"
#include "runtime/base/error.h"
#include "runtime/device/cuda/cuda_call.h"
#include "runtime/device/cuda/cuda_device.h"
#include "runtime/device/order_checker.h"
#include "runtime/device/timed_device.h"
#include "tests/cuda/cuda_under_test.h"
#include "tests/runtime/device/device_contract.h"
#include "tests/support/faulty_device.h"
#include "tests/support/gpu_ranks.h"
#include "tests/support/thrown_by.h"

namespace strake::test {
namespace {

std::string no_gpu() { return gpus_missing(1); }

constexpr std::array<DeviceFactory, 3> kCudaDevices{{
    {"Cuda", make_cuda_under_test, no_gpu},
    {"CheckedCuda", make_checked_cuda_under_test, no_gpu},
    {"FaultyCuda", make_faulty_cuda_under_test, no_gpu},
}};
INSTANTIATE_TEST_SUITE_P(Devices, DeviceContract, testing::ValuesIn(kCudaDevices), name_of_device);

Operation named(std::string_view name) { return {.label = {name}, .kind = "test", .reads = {}, .writes = {}}; }
cudaStream_t native_stream(NativeStream native) { return static_cast<cudaStream_t>(native.handle); }

class CudaDevice : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = gpus_missing(1); !reason.empty()) GTEST_SKIP() << reason;
    device_ = make_cuda_device(0, nullptr);
  }
  Device& device() { return *device_; }

 private:
  std::unique_ptr<Device> device_;
};

TEST_F(CudaDevice, ARefusedLaunchIsReportedByCheck) {
  const auto a = device().make_stream("a", StreamPriority::kNormal);
  a->launch(named("too many threads"),
            [](NativeStream native) { kernels::cuda::launch_refused(native_stream(native)); });
  const std::string message = thrown_by<DeviceError>([&] { device().check(); });
  EXPECT_NE(message.find("cudaErrorInvalid"), std::string::npos) << message;
  // The context is whole: nothing ran, nothing is lost.
  device().check();
  a->synchronize();
}

// Kernels that keep the GPU busy for so long, and a host that is late with the second: its delay is nobody's time.
TEST_F(CudaDevice, TimedOperationsTakeWhatTheirKernelsDo) {
  constexpr std::int64_t kSpinNs = 2'000'000;
  TimedDevice timed(device(), {.stream = "a", .lead_operations = 2});
  const auto a = timed.make_stream("a", StreamPriority::kNormal);
  const auto spin = [](NativeStream native) { kernels::cuda::spin(native_stream(native), kSpinNs); };
  for (std::int64_t run = 0; run < 2; ++run) {
    timed.begin_run(run);
    a->launch(named("first"), spin);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    a->launch(named("second"), spin);
    a->launch(named("third"), spin);
    timed.end_run();
    a->synchronize();
  }
  const TimedDevice::Times times = timed.times(1);
  ASSERT_EQ(times.operations.size(), 3u);
  for (const Nanoseconds time : times.operations) {
    EXPECT_GE(time.count(), kSpinNs);
    EXPECT_LT(time, std::chrono::milliseconds(40)) << "the host was 50 ms late";
  }
  EXPECT_GE(times.held, std::chrono::milliseconds(40));
  EXPECT_EQ(times.empty.size(), 1u);
}

// A fault of a kernel is sticky: the process that had it can do no more on that GPU. So it happens in a child.
TEST_F(CudaDevice, AFaultOfAKernelIsReportedByEverythingThatFollows) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto child = [] {
    const auto faulty = make_cuda_device(0, nullptr);
    GatePool gates;
    const auto gate = gates.make_gate();
    const auto a = faulty->make_stream("a", StreamPriority::kNormal);
    Event behind = faulty->make_event("behind");
    // Held until everything is enqueued: any call may be the one that reports a fault.
    a->launch(named("hold"), gate->body());
    a->launch(named("trap"), [](NativeStream native) { kernels::cuda::launch_trapping(native_stream(native)); });
    a->record(behind);
    const EventTicket ticket = faulty->ticket(behind);
    gate->open();
    int thrown = 0;
    const auto count = [&](auto function) { thrown += thrown_by<DeviceError>(function) != "nothing"; };
    count([&] { a->synchronize(); });
    count([&] { faulty->synchronize(behind); });
    count([&] { (void)faulty->complete(behind); });
    count([&] { a->synchronize(); });
    std::thread other([&] { count([&] { faulty->host_wait(ticket); }); });
    other.join();
    std::fprintf(stderr, "thrown %d of 5\n", thrown);
    _exit(thrown == 5 ? 0 : 1);  // no destructor: each would log the same fault
  };
  EXPECT_EXIT(child(), testing::ExitedWithCode(0), "thrown 5 of 5");
}

TEST_F(CudaDevice, OutOfMemoryNamesArenaAndBytesAndLosesNothing) {
  Arena arena("activations", MemoryKind::kDevice);
  arena.reserve(std::size_t{1} << 50);
  const std::size_t before_bytes = device().allocated_bytes();
  const std::string message = thrown_by<OutOfMemoryError>([&] { arena.allocate(device()); });
  EXPECT_NE(message.find("'activations'"), std::string::npos) << message;
  EXPECT_NE(message.find("1125899906842624 bytes"), std::string::npos) << message;
  EXPECT_EQ(device().allocated_bytes(), before_bytes);
  device().check();
}

TEST_F(CudaDevice, MemoryIsOfItsKind) {
  Arena on_device("device", MemoryKind::kDevice), host("host", MemoryKind::kHost);
  for (Arena* arena : {&on_device, &host}) {
    arena->reserve(100);
    arena->allocate(device());
  }
  const auto type_of = [](const Arena& arena) {
    cudaPointerAttributes attributes{};
    STRAKE_CUDA(cudaPointerGetAttributes(&attributes, reinterpret_cast<const void*>(arena.base().value)));
    return attributes.type;
  };
  EXPECT_EQ(type_of(on_device), cudaMemoryTypeDevice);
  EXPECT_EQ(type_of(host), cudaMemoryTypeHost);  // page-locked
}

TEST_F(CudaDevice, EachRankThreadHasItsOwnGpu) {
  if (const std::string reason = gpus_missing(2); !reason.empty()) GTEST_SKIP() << reason;
  std::vector<std::thread> threads;
  for (int ordinal = 0; ordinal < 2; ++ordinal) {
    threads.emplace_back([ordinal] {
      const auto mine = make_cuda_device(ordinal, nullptr);
      EXPECT_EQ(current_cuda_device(), ordinal);
      const auto a = mine->make_stream("a", StreamPriority::kNormal);
      Event copied = mine->make_event("copied");
      Arena arena("arena", MemoryKind::kDevice);
      const Tensor x = Tensor::reserve(arena, DType::kI32, {100});
      arena.allocate(*mine);
      cudaPointerAttributes attributes{};
      STRAKE_CUDA(cudaPointerGetAttributes(&attributes, reinterpret_cast<const void*>(arena.base().value)));
      EXPECT_EQ(attributes.device, ordinal);
      a->zero({"zero"}, x);
      a->record(copied);
      // A thread that has not chosen a GPU.
      std::thread([&mine, ticket = mine->ticket(copied)] { mine->host_wait(ticket); }).join();
      EXPECT_TRUE(mine->complete(copied));
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(CudaDevice, TheOrderCheckerReportsAMissingWait) {
  CheckedDevice checked(device(), CheckedDevice::Policy::kCollect);
  Arena arena("arena", MemoryKind::kDevice), host("host", MemoryKind::kHost);
  const Tensor x = Tensor::reserve(arena, DType::kI32, {100});
  const Tensor seen = Tensor::reserve(host, DType::kI32, {100});
  const auto a = checked.make_stream("a", StreamPriority::kNormal), b = checked.make_stream("b", StreamPriority::kHigh);
  Event written = checked.make_event("written");
  arena.allocate(checked);
  host.allocate(checked);
  a->zero({"write"}, x);
  a->record(written);
  b->wait(written, {"b waits for the write", Hazard::kReadAfterWrite});
  b->copy({"read"}, seen, x);
  EXPECT_TRUE(checked.checker().reports().empty());
  a->zero({"write again"}, x);
  ASSERT_EQ(checked.checker().reports().size(), 1u);
  EXPECT_EQ(checked.checker().reports()[0].describe(),
            "WAR: 'write again' on stream a is not ordered after 'read' on stream b (arena arena, bytes 0-400)");
}

TEST_F(CudaDevice, ADelayKeepsItsStreamBusy) {
  constexpr std::chrono::milliseconds kDelay(20);
  FaultyDevice faulty(device());
  faulty.faults().delays = {{.target = {.stream = "late"}, .fixed = kDelay}};
  const auto late = faulty.make_stream("late", StreamPriority::kNormal);
  Mark begin = faulty.make_mark("begin"), end = faulty.make_mark("end");
  late->mark(begin);
  late->launch(named("work"), [](NativeStream) {});
  late->mark(end);
  late->synchronize();
  EXPECT_GE(faulty.elapsed(begin, end), kDelay - std::chrono::milliseconds(1));  // two clocks of the GPU
}

}  // namespace
}  // namespace strake::test
