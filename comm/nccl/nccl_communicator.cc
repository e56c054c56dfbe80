#include "comm/nccl/nccl_communicator.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>
#include <nccl.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>
#include <numeric>
#include <string>
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
    const ncclResult_t result = fails ? ncclCommAbort(comm_) : ncclCommDestroy(comm_);
    if (result != ncclSuccess) {
      std::fprintf(stderr, "strake: warning: a communicator could not be destroyed: %s\n", ncclGetErrorString(result));
    }
    if (barrier_cell_ != nullptr) STRAKE_LOG_CUDA(cudaFree(barrier_cell_));
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::string backend() const override { return "nccl"; }

  void all_reduce(Stream& stream, Label label, const Tensor& data) override {
    check_reducible("all_reduce", data);
    const double ring_bytes = 2.0 * (size_ - 1) / size_ * static_cast<double>(data.extent_bytes());
    stream.launch(
        {.label = label, .kind = "all_reduce", .reads = {&data, 1}, .writes = {&data, 1}, .bytes = ring_bytes},
        [this, data](NativeStream native) {
          require(ncclAllReduce(address(data), address(data), elems(data), nccl_type(data.dtype()), ncclSum, comm_,
                                stream_of(native)),
                  "ncclAllReduce", comm_);
        });
  }
  void reduce_scatter(Stream& stream, Label label, const Tensor& out, const Tensor& in) override {
    check_reducible("reduce_scatter", in);
    STRAKE_CHECK(out.contiguous() && out.dtype() == in.dtype() && in.elems() == out.elems() * size_,
                 "reduce_scatter of " + in.describe() + " to " + out.describe());
    stream.launch({.label = label, .kind = "reduce_scatter", .reads = {&in, 1}, .writes = {&out, 1}},
                  [this, out, in](NativeStream native) {
                    require(ncclReduceScatter(address(in), address(out), elems(out), nccl_type(in.dtype()), ncclSum,
                                              comm_, stream_of(native)),
                            "ncclReduceScatter", comm_);
                  });
  }
  void all_gather(Stream& stream, Label label, const Tensor& out, const Tensor& in) override {
    STRAKE_CHECK(in.contiguous() && out.contiguous() && out.dtype() == in.dtype() && out.elems() == in.elems() * size_,
                 "all_gather of " + in.describe() + " to " + out.describe());
    stream.launch(
        {.label = label, .kind = "all_gather", .reads = {&in, 1}, .writes = {&out, 1}},
        [this, out, in](NativeStream native) {
          require(ncclAllGather(address(in), address(out), elems(in), nccl_type(in.dtype()), comm_, stream_of(native)),
                  "ncclAllGather", comm_);
        });
  }
  void broadcast(Stream& stream, Label label, const Tensor& data, int root) override {
    STRAKE_CHECK(data.contiguous() && root >= 0 && root < size_, "broadcast of " + data.describe());
    stream.launch({.label = label, .kind = "broadcast", .reads = {&data, 1}, .writes = {&data, 1}},
                  [this, data, root](NativeStream native) {
                    require(ncclBroadcast(address(data), address(data), elems(data), nccl_type(data.dtype()), root,
                                          comm_, stream_of(native)),
                            "ncclBroadcast", comm_);
                  });
  }
  void all_to_all(Stream& stream, Label label, const Tensor& out, std::span<const std::int64_t> recv_elems,
                  const Tensor& in, std::span<const std::int64_t> send_elems) override {
    const auto fits = [&](const Tensor& tensor, std::span<const std::int64_t> elems) {
      return tensor.contiguous() && static_cast<int>(elems.size()) == size_ && std::ranges::min(elems) >= 0 &&
             std::accumulate(elems.begin(), elems.end(), std::int64_t{0}) <= tensor.elems();
    };
    STRAKE_CHECK(fits(out, recv_elems) && fits(in, send_elems) && out.dtype() == in.dtype(),
                 "all_to_all: " + in.describe() + " and " + out.describe() + " do not hold what is sent and received");
    stream.launch(
        {.label = label, .kind = "all_to_all", .reads = {&in, 1}, .writes = {&out, 1}},
        [this, out, in, recv = std::vector(recv_elems.begin(), recv_elems.end()),
         send = std::vector(send_elems.begin(), send_elems.end())](NativeStream native) {
          const ncclDataType_t type = nccl_type(in.dtype());
          const std::size_t elem_bytes = size_bytes(in.dtype());
          auto* from = static_cast<std::byte*>(address(in));
          auto* to = static_cast<std::byte*>(address(out));
          require(ncclGroupStart(), "ncclGroupStart");
          for (std::size_t peer = 0; peer < send.size(); ++peer) {
            const auto sent = static_cast<std::size_t>(send[peer]), received = static_cast<std::size_t>(recv[peer]);
            if (sent > 0)
              require(ncclSend(from, sent, type, static_cast<int>(peer), comm_, stream_of(native)), "ncclSend", comm_);
            if (received > 0)
              require(ncclRecv(to, received, type, static_cast<int>(peer), comm_, stream_of(native)), "ncclRecv",
                      comm_);
            from += sent * elem_bytes;
            to += received * elem_bytes;
          }
          require(ncclGroupEnd(), "ncclGroupEnd", comm_);
        });
  }
  // NCCL has no barrier: a reduction of nothing but one element, in memory of the communicator's own.
  void barrier(Stream& stream, Label label) override {
    stream.launch({.label = label, .kind = "barrier", .reads = {}, .writes = {}}, [this](NativeStream native) {
      require(ncclAllReduce(barrier_cell(), barrier_cell(), 1, ncclInt32, ncclSum, comm_, stream_of(native)),
              "ncclAllReduce", comm_);
    });
  }

  std::unique_ptr<Communicator> split(int color, int key) override {
    ncclComm_t part = nullptr;
    require(ncclCommSplit(comm_, color < 0 ? NCCL_SPLIT_NOCOLOR : color, key, &part, nullptr), "ncclCommSplit", comm_);
    if (part == nullptr) return nullptr;
    int part_rank = 0, part_size = 0;
    require(ncclCommUserRank(part, &part_rank), "ncclCommUserRank", part);
    require(ncclCommCount(part, &part_size), "ncclCommCount", part);
    return std::make_unique<NcclCommunicator>(part, part_rank, part_size);
  }

 private:
  static void check_reducible(std::string_view what, const Tensor& data) {
    STRAKE_CHECK(data.contiguous() &&
                     (data.dtype() == DType::kF32 || data.dtype() == DType::kF64 || data.dtype() == DType::kBF16),
                 std::string(what) + " of " + data.describe());
  }
  void* barrier_cell() {
    if (barrier_cell_ == nullptr) STRAKE_CUDA(cudaMalloc(&barrier_cell_, sizeof(std::int32_t)));
    return barrier_cell_;
  }

  ncclComm_t comm_;
  int rank_, size_;
  const int exceptions_in_flight_;
  void* barrier_cell_ = nullptr;
};

}  // namespace

std::unique_ptr<Communicator> make_nccl_communicator(Control& control) {
  ncclUniqueId id{};
  if (control.rank() == 0) require(ncclGetUniqueId(&id), "ncclGetUniqueId");
  const std::string bytes = control.broadcast({id.internal, sizeof id.internal}, 0);
  STRAKE_CHECK(bytes.size() == sizeof id.internal, "the NCCL id arrived in part");
  std::memcpy(id.internal, bytes.data(), bytes.size());
  ncclComm_t communicator = nullptr;
  require(ncclCommInitRank(&communicator, control.size(), id, control.rank()), "ncclCommInitRank");
  return std::make_unique<NcclCommunicator>(communicator, control.rank(), control.size());
}

std::string nccl_version() {
  int version = 0;
  require(ncclGetVersion(&version), "ncclGetVersion");
  return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

}  // namespace strake::comm
