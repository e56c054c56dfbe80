// Kernels for timing and tests: random data, slow, held and failing operations. Launches are checked by the caller.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace strake::kernels::cuda {

// Uniform bf16 values in (-1, 1), for timing.
void fill_random(cudaStream_t stream, void* values, std::size_t elems, std::uint32_t seed);
// Sleeps on the GPU, in one block of one thread: a test's slow operation.
void spin(cudaStream_t stream, std::int64_t nanoseconds);
// Where a test holds a stream: page-locked host memory, written by both sides.
struct GateCell {
  std::uint32_t open, reached, expired;
};
// Holds the stream until `open` is set. Gives up after `limit_ns` and sets `expired`: a test that fails hangs no GPU.
void hold(cudaStream_t stream, GateCell* gate, std::int64_t limit_ns);
// out = (out * 31 + a) * 131 + b + id, modulo 2^64: a step of a random program.
void mix(cudaStream_t stream, std::int64_t* out, const std::int64_t* a, const std::int64_t* b, std::int64_t id);
// A launch that the runtime refuses, and a kernel that traps (the context is lost).
void launch_refused(cudaStream_t stream);
void launch_trapping(cudaStream_t stream);

}  // namespace strake::kernels::cuda
