#include "runtime/device/cuda/cuda_device.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nvtx3/nvToolsExt.h>

#include <array>
#include <cstdio>
#include <deque>
#include <mutex>
#include <optional>
#include <span>
#include <unordered_map>
#include <utility>

#include "runtime/base/error.h"
#include "runtime/device/cuda/cuda_call.h"
#include "runtime/device/cuda/gpu_memory.h"
#include "runtime/device/cuda/nvml.h"
#include "runtime/device/cuda/stream_words.h"

namespace strake {
namespace cuda {

void call_failed(cudaError_t error, const char* call, std::source_location where) {
  cudaGetLastError();  // the next call must not report this one again
  const std::string message = fmt::format("{} failed: {} ({}) [{}:{}]", call, cudaGetErrorName(error),
                                          cudaGetErrorString(error), where.file_name(), where.line());
  if (error == cudaErrorMemoryAllocation) throw OutOfMemoryError(message);
  throw DeviceError(message);
}

void call_failed_in_destructor(cudaError_t error, const char* call) noexcept {
  if (error == cudaErrorCudartUnloading) return;
  std::fprintf(stderr, "strake: warning: %s failed: %s\n", call, cudaGetErrorString(error));
}

}  // namespace cuda

namespace {

struct CudaEventState final : EventState {
  CudaEventState() { STRAKE_CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming)); }
  ~CudaEventState() override { STRAKE_LOG_CUDA(cudaEventDestroy(event)); }
  cudaEvent_t event = nullptr;
  std::uint32_t recorded = 0;
};

// A timed event that nothing waits for.
struct CudaMarkState final : MarkState {
  CudaMarkState() { STRAKE_CUDA(cudaEventCreate(&event)); }
  ~CudaMarkState() override { STRAKE_LOG_CUDA(cudaEventDestroy(event)); }
  cudaEvent_t event = nullptr;
  bool made = false;
};

bool has_run(cudaEvent_t event) {
  const cudaError_t status = cudaEventQuery(event);
  if (status == cudaErrorNotReady) return false;
  STRAKE_CUDA(status);
  return true;
}

// False: there is not so much. Throws what else is wrong.
bool taken(cudaError_t error, const char* call, std::string& why) {
  if (error == cudaSuccess) return true;
  if (error != cudaErrorMemoryAllocation) cuda::call_failed(error, call);
  cudaGetLastError();
  why = cudaGetErrorString(error);
  return false;
}

void* take_host_memory(std::size_t size_bytes, std::string& why) {
  void* memory = nullptr;
  return taken(cudaMallocHost(&memory, size_bytes), "cudaMallocHost", why) ? memory : nullptr;
}

class CudaStream final : public Stream {
 public:
  CudaStream(Device& device, std::string_view name, int index, int priority)
      : device_(device), name_(name), index_(index) {
    STRAKE_CUDA(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, priority));
  }
  ~CudaStream() override {
    STRAKE_LOG_CUDA(cudaStreamSynchronize(stream_));
    STRAKE_LOG_CUDA(cudaStreamDestroy(stream_));
  }

  void launch(const Operation& operation, Body body) override {
    label_.assign(operation.label.name);
    nvtxRangePushA(label_.c_str());
    body(NativeStream{stream_, workspace_});
    nvtxRangePop();
  }
  void set_workspace(const Tensor& workspace) override { workspace_ = workspace.address(); }
  void record(Event& event) override {
    auto& state = static_cast<CudaEventState&>(event.state());
    STRAKE_CUDA(cudaEventRecord(state.event, stream_));
    ++state.recorded;
  }
  void wait(const Event& event, WaitSite) override {
    auto& state = static_cast<CudaEventState&>(event.state());
    if (state.recorded > 0) STRAKE_CUDA(cudaStreamWaitEvent(stream_, state.event, 0));
  }
  void mark(Mark& mark) override {
    auto& state = static_cast<CudaMarkState&>(mark.state());
    STRAKE_CUDA(cudaEventRecord(state.event, stream_));
    state.made = true;
  }
  void synchronize() override { STRAKE_CUDA(cudaStreamSynchronize(stream_)); }

  Device& device() const override { return device_; }
  const std::string& name() const override { return name_; }
  int index() const override { return index_; }

 private:
  Device& device_;
  std::string name_;
  int index_;
  cudaStream_t stream_ = nullptr;
  DeviceAddress workspace_;
  std::string label_;  // NUL-terminated for NVTX, reused
};

class CudaDevice final : public Device {
 public:
  CudaDevice(int ordinal, std::unique_ptr<KernelState> kernels, GpuMemorySource memory)
      : ordinal_(ordinal), kernels_(std::move(kernels)), memory_(memory) {
    select_cuda_device(ordinal);
    STRAKE_CUDA(cudaDeviceGetStreamPriorityRange(&low_priority_, &high_priority_));
  }

  DeviceKind kind() const override { return DeviceKind::kCuda; }
  KernelState* kernel_state() const override { return kernels_.get(); }
  std::string description() const override {
    const GpuFacts facts = cuda_facts(ordinal_);
    return fmt::format("cuda:{} ({}, PCI {})", ordinal_, facts.name, facts.pci_bus_id);
  }

  std::unique_ptr<Stream> make_stream(std::string_view name, StreamPriority priority) override {
    return std::make_unique<CudaStream>(*this, name, next_stream_++,
                                        priority == StreamPriority::kHigh ? high_priority_ : low_priority_);
  }
  Event make_event(std::string_view name) override { return Event(events_.emplace_back(), name); }
  Mark make_mark(std::string_view name) override { return Mark(marks_.emplace_back(), name); }

  DeviceAddress allocate(std::string_view name, std::size_t size_bytes, MemoryKind kind) override {
    std::string why;
    void* const memory =
        kind == MemoryKind::kDevice ? memory_.take(size_bytes, why) : take_host_memory(size_bytes, why);
    if (memory == nullptr) {
      std::size_t free_bytes = 0, total_bytes = 0;
      STRAKE_CUDA(cudaMemGetInfo(&free_bytes, &total_bytes));
      throw OutOfMemoryError(fmt::format(
          "cannot allocate {} bytes of {} memory for '{}': {} ({} of {} bytes are free on the "
          "GPU)",
          size_bytes, kind == MemoryKind::kDevice ? "GPU" : "page-locked host", name, why, free_bytes, total_bytes));
    }
    if (kind == MemoryKind::kDevice) {
      STRAKE_CUDA(cudaMemset(memory, 0, size_bytes));
      STRAKE_CUDA(cudaDeviceSynchronize());  // other streams do not wait for the default stream
    } else {
      __builtin_memset(memory, 0, size_bytes);
    }
    const auto address = reinterpret_cast<std::uintptr_t>(memory);
    sizes_[address] = size_bytes;
    allocated_bytes_ += size_bytes;
    return {address};
  }
  void free(DeviceAddress address, MemoryKind kind) noexcept override {
    const auto found = sizes_.find(address.value);
    if (found == sizes_.end()) return;
    void* memory = reinterpret_cast<void*>(address.value);
    if (kind == MemoryKind::kDevice) {
      memory_.give_back(memory);
    } else {
      STRAKE_LOG_CUDA(cudaFreeHost(memory));
    }
    allocated_bytes_ -= found->second;
    sizes_.erase(found);
  }
  std::size_t allocated_bytes() const override { return allocated_bytes_; }
  std::optional<std::size_t> driver_bytes() const override { return cuda::gpu_memory_of_this_process(ordinal_); }

  std::optional<std::size_t> free_bytes() const override {
    std::size_t free_bytes = 0, total_bytes = 0;
    STRAKE_CUDA(cudaMemGetInfo(&free_bytes, &total_bytes));
    return free_bytes;
  }

  bool complete(const Event& event) const override {
    const CudaEventState& state = state_of(event);
    return state.recorded == 0 || has_run(state.event);
  }
  bool complete(const Mark& mark) const override {
    const CudaMarkState& state = state_of(mark);
    return !state.made || has_run(state.event);
  }
  void synchronize(const Event& event) override {
    if (state_of(event).recorded > 0) STRAKE_CUDA(cudaEventSynchronize(state_of(event).event));
  }
  EventTicket ticket(const Event& event) const override { return {&event.state(), state_of(event).recorded}; }
  // Waits for the latest record, which is the ticket's or a later one of work that is enqueued already.
  void host_wait(EventTicket ticket) override {
    if (ticket.number == 0) return;
    STRAKE_CUDA(cudaSetDevice(ordinal_));  // of this host thread
    STRAKE_CUDA(cudaEventSynchronize(static_cast<CudaEventState*>(ticket.state)->event));
  }

  Nanoseconds elapsed(const Mark& from, const Mark& to) const override {
    float milliseconds = 0;
    STRAKE_CUDA(cudaEventElapsedTime(&milliseconds, state_of(from).event, state_of(to).event));
    return Nanoseconds(static_cast<std::int64_t>(static_cast<double>(milliseconds) * 1e6));
  }
  // Not known to CUDA: idle time shows between marks that the host enqueues apart.
  Nanoseconds starved(const Mark&, const Mark&) const override { return Nanoseconds(0); }

  void check() override { STRAKE_CUDA(cudaPeekAtLastError()); }

  Body copy_body(const Tensor& dst, const Tensor& src) override {
    return [dst, src](NativeStream native) {
      STRAKE_CUDA(cudaMemcpyAsync(reinterpret_cast<void*>(dst.address().value),
                                  reinterpret_cast<void*>(src.address().value), src.extent_bytes(), cudaMemcpyDefault,
                                  static_cast<cudaStream_t>(native.handle)));
    };
  }
  Body zero_body(const Tensor& dst) override {
    return [dst](NativeStream native) {
      STRAKE_CUDA(cudaMemsetAsync(reinterpret_cast<void*>(dst.address().value), 0, dst.extent_bytes(),
                                  static_cast<cudaStream_t>(native.handle)));
    };
  }
  Body raise_body(const Tensor& host_word) override {
    return [host_word](NativeStream native) {
      cuda::stream_stores(static_cast<cudaStream_t>(native.handle), host_word.address().value, 1);
    };
  }
  Body await_body(const Tensor& host_word) override {
    return [host_word](NativeStream native) {
      cuda::stream_awaits_at_least(static_cast<cudaStream_t>(native.handle), host_word.address().value, 1);
    };
  }

 private:
  static CudaEventState& state_of(const Event& event) { return static_cast<CudaEventState&>(event.state()); }
  static CudaMarkState& state_of(const Mark& mark) { return static_cast<CudaMarkState&>(mark.state()); }

  int ordinal_;
  std::unique_ptr<KernelState> kernels_;
  const GpuMemorySource memory_;
  int low_priority_ = 0, high_priority_ = 0;
  std::deque<CudaEventState> events_;
  std::deque<CudaMarkState> marks_;
  std::unordered_map<std::uintptr_t, std::size_t> sizes_;
  std::size_t allocated_bytes_ = 0;
  int next_stream_ = 0;
};

// 13000 -> "13.0"
std::string version_text(int version) {
  return version == 0 ? "" : fmt::format("{}.{}", version / 1000, version / 10 % 100);
}

}  // namespace

int cuda_device_number() {
  int number = 0;
  // Without a driver the call fails and leaves its argument alone.
  if (cudaGetDeviceCount(&number) != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  return number;
}

std::string cuda_unavailable_reason() {
  int number = 0;
  const cudaError_t error = cudaGetDeviceCount(&number);
  if (error == cudaSuccess) return number == 0 ? "no GPU is visible" : "";
  cudaGetLastError();
  if (error != cudaErrorInsufficientDriver) return cudaGetErrorString(error);
  // Also what a machine without any driver answers.
  const std::string driver = cuda_driver_version();
  return driver.empty() ? "no NVIDIA driver"
                        : fmt::format("the NVIDIA driver supports CUDA {}, and this program needs {}", driver,
                                      cuda_runtime_version());
}

GpuMemorySource cuda_memory() {
  return {.take =
              [](std::size_t size_bytes, std::string& why) {
                void* memory = nullptr;
                return taken(cudaMalloc(&memory, size_bytes), "cudaMalloc", why) ? memory : nullptr;
              },
          .give_back = [](void* memory) noexcept { STRAKE_LOG_CUDA(cudaFree(memory)); }};
}

std::unique_ptr<Device> make_cuda_device(int ordinal, std::unique_ptr<KernelState> kernels, GpuMemorySource memory) {
  return std::make_unique<CudaDevice>(ordinal, std::move(kernels), memory);
}

void select_cuda_device(int ordinal) {
  cuda::note_gpu_memory_before_use(ordinal);
  STRAKE_CUDA(cudaSetDevice(ordinal));
}

int current_cuda_device() {
  int ordinal = 0;
  STRAKE_CUDA(cudaGetDevice(&ordinal));
  return ordinal;
}

GpuFacts cuda_facts(int ordinal) {
  cudaDeviceProp properties{};
  STRAKE_CUDA(cudaGetDeviceProperties(&properties, ordinal));
  GpuFacts facts;
  facts.ordinal = ordinal;
  facts.name = properties.name;
  facts.memory_bytes = properties.totalGlobalMem;
  facts.multiprocessors = properties.multiProcessorCount;
  facts.compute_capability = properties.major * 10 + properties.minor;
  facts.memory_bus_bits = properties.memoryBusWidth;
  facts.l2_bytes = static_cast<std::size_t>(properties.l2CacheSize);
  const std::span<const unsigned char, 16> id(reinterpret_cast<const unsigned char*>(properties.uuid.bytes), 16);
  facts.uuid = fmt::format("GPU-{:02x}-{:02x}-{:02x}-{:02x}-{:02x}", fmt::join(id.subspan(0, 4), ""),
                           fmt::join(id.subspan(4, 2), ""), fmt::join(id.subspan(6, 2), ""),
                           fmt::join(id.subspan(8, 2), ""), fmt::join(id.subspan(10, 6), ""));
  std::array<char, 32> bus_id{};
  STRAKE_CUDA(cudaDeviceGetPCIBusId(bus_id.data(), static_cast<int>(bus_id.size()), ordinal));
  facts.pci_bus_id = bus_id.data();
  int sm_clock_khz = 0, memory_clock_khz = 0;
  STRAKE_CUDA(cudaDeviceGetAttribute(&sm_clock_khz, cudaDevAttrClockRate, ordinal));
  STRAKE_CUDA(cudaDeviceGetAttribute(&memory_clock_khz, cudaDevAttrMemoryClockRate, ordinal));
  facts.max_sm_clock_mhz = sm_clock_khz / 1000;
  facts.max_memory_clock_mhz = memory_clock_khz / 1000;
  return facts;
}

GpuMachine cuda_machine() {
  GpuMachine machine;
  const std::optional<Nvml> nvml = Nvml::load();
  if (nvml.has_value()) machine.driver = nvml->driver_version();
  const int gpus = cuda_device_number();
  if (gpus == 0) machine.missing = cuda_unavailable_reason();
  for (int ordinal = 0; ordinal < gpus; ++ordinal) {
    GpuFacts facts = cuda_facts(ordinal);
    if (nvml.has_value()) nvml->complete(facts);
    for (const GpuFacts& other : machine.gpus) {
      machine.links.push_back(nvml.has_value() ? nvml->link(other, facts)
                                               : GpuLink{.first = other.ordinal, .second = ordinal, .path = "unknown"});
    }
    machine.gpus.push_back(std::move(facts));
  }
  return machine;
}

GpuLink cuda_link(const std::string& pci_bus_id, const std::string& other) {
  const std::optional<Nvml> nvml = Nvml::load();
  if (!nvml.has_value()) return {.path = "unknown"};
  return nvml->link({.pci_bus_id = pci_bus_id}, {.pci_bus_id = other});
}

std::unique_ptr<GpuSensor> make_cuda_sensor() {
  const std::optional<Nvml> nvml = Nvml::load();
  return nvml.has_value() ? nvml->sensor(cuda_facts(current_cuda_device()).pci_bus_id) : nullptr;
}

std::string cuda_driver_version() {
  int version = 0;  // stays so without a driver
  STRAKE_CUDA(cudaDriverGetVersion(&version));
  return version_text(version);
}

std::string cuda_runtime_version() {
  int version = 0;
  STRAKE_CUDA(cudaRuntimeGetVersion(&version));
  return version_text(version);
}

}  // namespace strake
