// What candidates are timed with: memory of their own, and a stream on which one thing after the other is timed.
// Threads: the training thread. Errors: DeviceError.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>
#include <vector>

#include "runtime/device/cuda/cuda_call.h"

namespace strake::kernels::cuda {

// Device memory for the duration of tuning.
class Scratch {
 public:
  explicit Scratch(std::size_t size_bytes) {
    STRAKE_CUDA(cudaMalloc(&memory_, std::max<std::size_t>(size_bytes, 256)));
  }
  ~Scratch() { STRAKE_LOG_CUDA(cudaFree(memory_)); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  void* get() const { return memory_; }

 private:
  void* memory_ = nullptr;
};

// Two moments on a stream.
class Stopwatch {
 public:
  Stopwatch() {
    STRAKE_CUDA(cudaEventCreate(&begin_));
    STRAKE_CUDA(cudaEventCreate(&end_));
  }
  ~Stopwatch() {
    STRAKE_LOG_CUDA(cudaEventDestroy(begin_));
    STRAKE_LOG_CUDA(cudaEventDestroy(end_));
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

  void start(cudaStream_t stream) { STRAKE_CUDA(cudaEventRecord(begin_, stream)); }
  void stop(cudaStream_t stream) { STRAKE_CUDA(cudaEventRecord(end_, stream)); }
  // Waits for the second.
  double us() {
    STRAKE_CUDA(cudaEventSynchronize(end_));
    float milliseconds = 0;
    STRAKE_CUDA(cudaEventElapsedTime(&milliseconds, begin_, end_));
    return static_cast<double>(milliseconds) * 1e3;
  }

 private:
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

class TimedStream {
 public:
  TimedStream() { STRAKE_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  ~TimedStream() { STRAKE_LOG_CUDA(cudaStreamDestroy(stream_)); }
  TimedStream(const TimedStream&) = delete;
  TimedStream& operator=(const TimedStream&) = delete;

  cudaStream_t get() const { return stream_; }
  void start() { watch_.start(stream_); }
  double stop_us() {
    watch_.stop(stream_);
    return watch_.us();
  }

 private:
  cudaStream_t stream_ = nullptr;
  Stopwatch watch_;
};

inline double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace strake::kernels::cuda
