#include "comm/nccl/nccl_communicator.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>
#include <nccl.h>

#include <cstdio>
#include <cstring>
#include <exception>
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
  NcclCommunicator(ncclComm_t communicator, int rank, int size)
      : comm_(communicator), rank_(rank), size_(size), exceptions_in_flight_(std::uncaught_exceptions()) {}
  ~NcclCommunicator() override {
    // Destroying waits for the ranks of this machine to do the same: not when this rank ends by an exception.
    const bool fails = std::uncaught_exceptions() > exceptions_in_flight_;
    give_up(fails ? ncclCommAbort : ncclCommDestroy, "destroyed");
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

  std::unique_ptr<Communicator> split(int color, int key) override {
    call("ncclCommSplit", [&](ncclComm_t comm) {
      return ncclCommSplit(comm, color < 0 ? NCCL_SPLIT_NOCOLOR : color, key, &part_, nullptr);
    });
    const ncclComm_t part = std::exchange(part_, nullptr);
    if (part == nullptr) return nullptr;
    int part_rank = 0, part_size = 0;
    require(ncclCommUserRank(part, &part_rank), "ncclCommUserRank", part);
    require(ncclCommCount(part, &part_size), "ncclCommCount", part);
    return std::make_unique<NcclCommunicator>(part, part_rank, part_size);
  }

  void check() override { state("a collective"); }
  void abort() noexcept override { give_up(ncclCommAbort, "aborted"); }

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
  // Only the first to come ends the communicator, and holds up nobody while it does.
  void give_up(ncclResult_t (*end)(ncclComm_t), const char* how) noexcept {
    ncclComm_t mine = nullptr;
    {
      const std::lock_guard lock(comm_mutex_);
      mine = std::exchange(comm_, nullptr);
    }
    if (mine == nullptr) return;
    const ncclResult_t result = end(mine);
    if (result != ncclSuccess)
      std::fprintf(stderr, "strake: warning: a communicator could not be %s: %s\n", how, ncclGetErrorString(result));
  }

  std::mutex comm_mutex_;      // between the training thread and abort(); held for calls that wait for nobody
  ncclComm_t comm_;            // null: given up
  ncclComm_t part_ = nullptr;  // of a split: written by a thread of NCCL's, also when split() has left by an exception
  int rank_, size_;
  const int exceptions_in_flight_;
  void* barrier_cell_ = nullptr;
};

}  // namespace

std::unique_ptr<Communicator> make_nccl_communicator(Control& control, std::chrono::seconds limit) {
  ncclUniqueId id{};
  if (control.rank() == 0) require(ncclGetUniqueId(&id), "ncclGetUniqueId");
  const std::string bytes = control.broadcast({id.internal, sizeof id.internal}, 0);
  STRAKE_CHECK(bytes.size() == sizeof id.internal, "the NCCL id arrived in part");
  std::memcpy(id.internal, bytes.data(), bytes.size());
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  ncclComm_t communicator = nullptr;
  require(ncclCommInitRankConfig(&communicator, control.size(), id, control.rank(), &config), "ncclCommInitRankConfig");
  auto made = std::make_unique<NcclCommunicator>(communicator, control.rank(), control.size());
  made->await_peers(limit);
  return made;
}

std::string nccl_version() {
  int version = 0;
  require(ncclGetVersion(&version), "ncclGetVersion");
  return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

}  // namespace strake::comm
