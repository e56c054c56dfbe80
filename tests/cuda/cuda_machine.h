// A GPU for the contract suite of communicators.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>

#include "runtime/device/cuda/cuda_call.h"
#include "runtime/device/cuda/cuda_device.h"
#include "tests/comm/communicator_contract.h"
#include "tests/cuda/cuda_under_test.h"

namespace strake::comm {

class CudaMachine final : public Machine {
 public:
  explicit CudaMachine(int ordinal, GpuMemorySource memory = cuda_memory())
      : cuda_(make_cuda_device(ordinal, nullptr, memory)) {
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

}  // namespace strake::comm
