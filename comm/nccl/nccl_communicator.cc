#include "comm/nccl/nccl_communicator.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <fmt/format.h>
#include <nccl.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <list>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/device/cuda/cuda_call.h"

namespace strake::comm {
namespace {

void require(ncclResult_t result, const char* call, ncclComm_t communicator = nullptr) {
  if (result == ncclSuccess || result == ncclInProgress) [[likely]]
    return;
  throw CommError(fmt::format("{} failed: {}: {}. NCCL_DEBUG=WARN tells more", call, ncclGetErrorString(result),
                              ncclGetLastError(communicator)),
                  -1);
}

// Before main(): no thread reads the environment while it is written, and NCCL reads it later.
[[maybe_unused]] const int kMulticastOff = setenv("NCCL_NVLS_ENABLE", "0", /*overwrite=*/1);

// The headers may be older than the library, and the library older than they are.
#if NCCL_VERSION_CODE >= 22700
using Window = ncclWindow_t;
constexpr int kSymmetricWindow = NCCL_WIN_COLL_SYMMETRIC;
#else
using Window = void*;
constexpr int kSymmetricWindow = 1;
#endif
using RegisterWindow = ncclResult_t (*)(ncclComm_t, void*, std::size_t, Window*, int);
using DeregisterWindow = ncclResult_t (*)(ncclComm_t, Window);

// A function that older libraries lack: with such a one the program starts all the same.
template <typename Function>
Function from_library(const char* name) {
  auto* const function = reinterpret_cast<Function>(dlsym(RTLD_DEFAULT, name));
  STRAKE_CHECK(function != nullptr, std::string("NCCL ") + nccl_version() + " has no " + name);
  return function;
}

// Lets others run while NCCL's thread works, which normally takes microseconds.
class Pauses {
 public:
  void pause() {
    if (std::chrono::steady_clock::now() - begin_ < std::chrono::microseconds(200)) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  }
  bool longer_than(std::chrono::nanoseconds limit) const { return std::chrono::steady_clock::now() - begin_ > limit; }

 private:
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

ncclDataType_t nccl_type(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return ncclFloat32;
    case DType::kF64:
      return ncclFloat64;
    case DType::kBF16:
      return ncclBfloat16;
    case DType::kI32:
      return ncclInt32;
    case DType::kI64:
      return ncclInt64;
    case DType::kU8:
      return ncclUint8;
  }
  STRAKE_CHECK(false, "no NCCL type");
  return ncclUint8;
}

void* address(const Tensor& tensor) { return reinterpret_cast<void*>(tensor.address().value); }
std::size_t elems(const Tensor& tensor) { return static_cast<std::size_t>(tensor.elems()); }
cudaStream_t stream_of(NativeStream native) { return static_cast<cudaStream_t>(native.handle); }

class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(ncclComm_t communicator, int rank, int size, NcclOptions::Buffers buffers)
      : comm_(communicator),
        rank_(rank),
        size_(size),
        buffers_(buffers),
        exceptions_in_flight_(std::uncaught_exceptions()) {}
  ~NcclCommunicator() override {
    // Destroying waits for the ranks of this machine to do the same: not when this rank ends by an exception.
    const bool fails = std::uncaught_exceptions() > exceptions_in_flight_;
    give_up(fails ? abort_of() : ncclCommDestroy, "destroyed");
    if (barrier_cell_ != nullptr) STRAKE_LOG_CUDA(cudaFree(barrier_cell_));
  }

  // Of a communicator that is being made. On an exception its destructor aborts.
  void await_peers(std::chrono::seconds limit) {
    const Pauses pauses;
    while (state("ncclCommInitRankConfig") == ncclInProgress) {
      if (pauses.longer_than(limit)) {
        throw CommError(fmt::format("the {} ranks have not found each other through NCCL after {} s: one of them has "
                                    "ended or hangs, or no network connects them. NCCL_DEBUG=INFO tells more",
                                    size_, limit.count()),
                        -1);
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::string backend() const override { return "nccl"; }

  void register_memory(const Arena& arena) override {
    if (buffers_ == NcclOptions::Buffers::kPlain || size_ == 1) return;
    void* const memory = reinterpret_cast<void*>(arena.base().value);
    // In the list before the call: a thread of NCCL's writes the handle, also when the call is left by an exception.
    Registration& registration = registrations_.emplace_back(Registration{.arena = &arena});
    if (buffers_ == NcclOptions::Buffers::kRegistered) {
      call("ncclCommRegister",
           [&](ncclComm_t comm) { return ncclCommRegister(comm, memory, arena.size_bytes(), &registration.handle); });
    } else {
      static const auto register_window = from_library<RegisterWindow>("ncclCommWindowRegister");
      call("ncclCommWindowRegister", [&](ncclComm_t comm) {
        return register_window(comm, memory, arena.size_bytes(), &registration.window, kSymmetricWindow);
      });
    }
    if (registration.handle != nullptr || registration.window != nullptr) return;
    registrations_.pop_back();
    throw CommError(fmt::format("NCCL {} does not register '{}' ({} bytes) with these GPUs and this environment. "
                                "NCCL_DEBUG=INFO tells more; comm.buffers = plain does without",
                                nccl_version(), arena.name(), arena.size_bytes()),
                    -1);
  }
  // Local: no rank waits for another.
  void forget_memory(const Arena& arena) noexcept override {
    const auto found = std::find_if(registrations_.begin(), registrations_.end(),
                                    [&](const Registration& each) { return each.arena == &arena; });
    if (found == registrations_.end()) return;
    const std::lock_guard lock(comm_mutex_);
    if (comm_ != nullptr) forget(*found);  // else it went with the communicator
    registrations_.erase(found);
  }

  std::unique_ptr<Communicator> split(int color, int key) override {
    call("ncclCommSplit", [&](ncclComm_t comm) {
      return ncclCommSplit(comm, color < 0 ? NCCL_SPLIT_NOCOLOR : color, key, &part_, nullptr);
    });
    const ncclComm_t part = std::exchange(part_, nullptr);
    if (part == nullptr) return nullptr;
    int part_rank = 0, part_size = 0;
    require(ncclCommUserRank(part, &part_rank), "ncclCommUserRank", part);
    require(ncclCommCount(part, &part_size), "ncclCommCount", part);
    return std::make_unique<NcclCommunicator>(part, part_rank, part_size, buffers_);
  }

  void check() override { state("a collective"); }
  void abort() noexcept override { give_up(abort_of(), "aborted"); }

 private:
  bool moves_memory_of(DeviceKind kind) const override { return kind == DeviceKind::kCuda; }
  Body all_reduce_body(const std::string&, const Tensor& data) override {
    return [this, data](NativeStream native) {
      call("ncclAllReduce", [&](ncclComm_t comm) {
        return ncclAllReduce(address(data), address(data), elems(data), nccl_type(data.dtype()), ncclSum, comm,
                             stream_of(native));
      });
    };
  }
  Body reduce_scatter_body(const std::string&, const Tensor& out, const Tensor& in) override {
    return [this, out, in](NativeStream native) {
      call("ncclReduceScatter", [&](ncclComm_t comm) {
        return ncclReduceScatter(address(in), address(out), elems(out), nccl_type(in.dtype()), ncclSum, comm,
                                 stream_of(native));
      });
    };
  }
  Body all_gather_body(const std::string&, const Tensor& out, const Tensor& in) override {
    return [this, out, in](NativeStream native) {
      call("ncclAllGather", [&](ncclComm_t comm) {
        return ncclAllGather(address(in), address(out), elems(in), nccl_type(in.dtype()), comm, stream_of(native));
      });
    };
  }
  Body broadcast_body(const std::string&, const Tensor& data, int root) override {
    return [this, data, root](NativeStream native) {
      call("ncclBroadcast", [&](ncclComm_t comm) {
        return ncclBroadcast(address(data), address(data), elems(data), nccl_type(data.dtype()), root, comm,
                             stream_of(native));
      });
    };
  }
  Body all_to_all_body(const std::string&, const Tensor& out, std::vector<std::int64_t> recv_elems, const Tensor& in,
                       std::vector<std::int64_t> send_elems) override {
    return [this, out, recv = std::move(recv_elems), in, send = std::move(send_elems)](NativeStream native) {
      const ncclDataType_t type = nccl_type(in.dtype());
      const std::size_t elem_bytes = size_bytes(in.dtype());
      auto* from = static_cast<std::byte*>(address(in));
      auto* to = static_cast<std::byte*>(address(out));
      call("ncclGroupEnd", [&](ncclComm_t comm) {
        require(ncclGroupStart(), "ncclGroupStart");
        for (std::size_t peer = 0; peer < send.size(); ++peer) {
          const auto sent = static_cast<std::size_t>(send[peer]), received = static_cast<std::size_t>(recv[peer]);
          const int rank = static_cast<int>(peer);
          if (sent > 0) require(ncclSend(from, sent, type, rank, comm, stream_of(native)), "ncclSend");
          if (received > 0) require(ncclRecv(to, received, type, rank, comm, stream_of(native)), "ncclRecv");
          from += sent * elem_bytes;
          to += received * elem_bytes;
        }
        return ncclGroupEnd();
      });
    };
  }
  // NCCL has no barrier: a reduction of nothing but one element, in memory of the communicator's own.
  Body barrier_body(const std::string&) override {
    return [this](NativeStream native) {
      call("ncclAllReduce", [&](ncclComm_t comm) {
        return ncclAllReduce(barrier_cell(), barrier_cell(), 1, ncclInt32, ncclSum, comm, stream_of(native));
      });
    };
  }

  struct Registration {
    const Arena* arena;
    void* handle = nullptr;   // of a registered buffer
    Window window = nullptr;  // of a symmetric one
  };
  // REQUIRES: comm_mutex_ is held, comm_ is not null.
  void forget(const Registration& registration) noexcept {
    ncclResult_t result = ncclSuccess;
    if (registration.handle != nullptr) result = ncclCommDeregister(comm_, registration.handle);
    if (registration.window != nullptr) {
      static const auto deregister_window = from_library<DeregisterWindow>("ncclCommWindowDeregister");
      result = deregister_window(comm_, registration.window);
    }
    // Of a communicator that has failed nothing can be taken back; what it keeps goes with it.
    if (result != ncclSuccess && result != ncclInProgress && std::uncaught_exceptions() == exceptions_in_flight_) {
      std::fprintf(stderr, "strake: warning: '%s' could not be deregistered: %s\n", registration.arena->name().c_str(),
                   ncclGetErrorString(result));
    }
  }

  void* barrier_cell() {
    if (barrier_cell_ == nullptr) STRAKE_CUDA(cudaMalloc(&barrier_cell_, sizeof(std::int32_t)));
    return barrier_cell_;
  }

  // Calls NCCL with the communicator and waits until what it enqueued is on the stream: only then may an event be
  // recorded behind it. Other threads may abort() in between.
  template <typename Call>
  void call(const char* name, Call enqueue) {
    {
      const std::lock_guard lock(comm_mutex_);
      require(enqueue(usable(name)), name, comm_);
    }
    Pauses pauses;
    while (state(name) == ncclInProgress) pauses.pause();
  }
  // ncclSuccess or ncclInProgress; throws what went wrong.
  ncclResult_t state(const char* name) {
    const std::lock_guard lock(comm_mutex_);
    ncclResult_t state = ncclSuccess;
    require(ncclCommGetAsyncError(usable(name), &state), "ncclCommGetAsyncError", comm_);
    require(state, name, comm_);
    return state;
  }
  // REQUIRES: comm_mutex_ is held.
  ncclComm_t usable(const char* name) const {
    if (comm_ == nullptr) throw CommError(fmt::format("{}: the communicator was aborted", name), -1);
    return comm_;
  }
  // Kernels between symmetric buffers, and copy engines, look at no flag while they wait for a peer (NCCL 2.28):
  // nothing ends them, and ncclCommAbort would wait for them. Such a communicator is left as it is, for the process's
  // end.
  using EndCommunicator = ncclResult_t (*)(ncclComm_t);
  EndCommunicator abort_of() const { return buffers_ == NcclOptions::Buffers::kSymmetric ? nullptr : ncclCommAbort; }
  // Only the first to come ends the communicator, and holds up nobody while it does.
  void give_up(EndCommunicator end, const char* how) noexcept {
    ncclComm_t mine = nullptr;
    {
      const std::lock_guard lock(comm_mutex_);
      mine = std::exchange(comm_, nullptr);
    }
    if (mine == nullptr || end == nullptr) return;
    const ncclResult_t result = end(mine);
    if (result != ncclSuccess)
      std::fprintf(stderr, "strake: warning: a communicator could not be %s: %s\n", how, ncclGetErrorString(result));
  }

  std::mutex comm_mutex_;      // between the training thread and abort(); held for calls that wait for nobody
  ncclComm_t comm_;            // null: given up
  ncclComm_t part_ = nullptr;  // of a split: written by a thread of NCCL's, also when split() has left by an exception
  int rank_, size_;
  const NcclOptions::Buffers buffers_;
  std::list<Registration> registrations_;  // stay where they are: see register_memory
  const int exceptions_in_flight_;
  void* barrier_cell_ = nullptr;
};

}  // namespace

std::unique_ptr<Communicator> make_nccl_communicator(Control& control, const NcclOptions& options,
                                                     std::chrono::seconds limit) {
  ncclUniqueId id{};
  if (control.rank() == 0) require(ncclGetUniqueId(&id), "ncclGetUniqueId");
  const std::string bytes = control.broadcast({id.internal, sizeof id.internal}, 0);
  STRAKE_CHECK(bytes.size() == sizeof id.internal, "the NCCL id arrived in part");
  std::memcpy(id.internal, bytes.data(), bytes.size());
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  if (options.min_ctas > 0) config.minCTAs = options.min_ctas;
  if (options.max_ctas > 0) config.maxCTAs = options.max_ctas;
#if NCCL_VERSION_CODE >= 22800
  if (options.copy_engines) config.CTAPolicy = NCCL_CTA_POLICY_ZERO;
#endif
  ncclComm_t communicator = nullptr;
  require(ncclCommInitRankConfig(&communicator, control.size(), id, control.rank(), &config), "ncclCommInitRankConfig");
  auto made = std::make_unique<NcclCommunicator>(communicator, control.rank(), control.size(), options.buffers);
  made->await_peers(limit);
  return made;
}

GpuMemorySource nccl_memory() {
  return {.take =
              [](std::size_t size_bytes, std::string& why) {
                void* memory = nullptr;
                const ncclResult_t result = ncclMemAlloc(&memory, size_bytes);
                if (result == ncclSuccess) return memory;
                cudaGetLastError();
                why = fmt::format("ncclMemAlloc failed: {}", ncclGetLastError(nullptr));
                return static_cast<void*>(nullptr);
              },
          .give_back =
              [](void* memory) noexcept {
                const ncclResult_t result = ncclMemFree(memory);
                if (result != ncclSuccess)
                  std::fprintf(stderr, "strake: warning: ncclMemFree failed: %s\n", ncclGetErrorString(result));
              }};
}

namespace {

int loaded_version() {
  int version = 0;
  require(ncclGetVersion(&version), "ncclGetVersion");
  return version;
}

}  // namespace

std::string nccl_version() {
  const int version = loaded_version();
  return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

int nccl_usable_version() { return std::min(loaded_version(), NCCL_VERSION_CODE); }

}  // namespace strake::comm
