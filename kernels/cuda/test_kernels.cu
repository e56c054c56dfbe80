#include <cuda_bf16.h>

#include "kernels/cuda/test_kernels.h"

namespace strake::kernels::cuda {
namespace {

__device__ std::int64_t nanoseconds_now() {
  std::uint64_t now;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
  return static_cast<std::int64_t>(now);
}

__global__ void spin_kernel(std::int64_t nanoseconds) {
  const std::int64_t begin = nanoseconds_now();
  do {
    __nanosleep(1000);
  } while (nanoseconds_now() - begin < nanoseconds);
}

__global__ void hold_kernel(volatile GateCell* gate, std::int64_t limit_ns) {
  gate->reached = 1;
  __threadfence_system();
  const std::int64_t begin = nanoseconds_now();
  while (gate->open == 0) {
    if (nanoseconds_now() - begin > limit_ns) {
      gate->expired = 1;
      break;
    }
    __nanosleep(1000);
  }
}

__global__ void mix_kernel(std::int64_t* out, const std::int64_t* a, const std::int64_t* b, std::int64_t id) {
  const auto value = (static_cast<std::uint64_t>(*out) * 31 + static_cast<std::uint64_t>(*a)) * 131 +
                     static_cast<std::uint64_t>(*b) + static_cast<std::uint64_t>(id);
  *out = static_cast<std::int64_t>(value);
}

__global__ void empty_kernel() {}
__global__ void trapping_kernel() { __trap(); }

__global__ void random_kernel(__nv_bfloat16* values, std::size_t elems, std::uint32_t seed) {
  for (std::size_t i = blockIdx.x * static_cast<std::size_t>(blockDim.x) + threadIdx.x; i < elems;
       i += static_cast<std::size_t>(gridDim.x) * blockDim.x) {
    std::uint32_t x = static_cast<std::uint32_t>(i) * 2654435761u + seed;
    x = (x ^ (x >> 16)) * 0x7feb352du;
    x = (x ^ (x >> 15)) * 0x846ca68bu;
    values[i] = __float2bfloat16_rn(static_cast<float>(x ^ (x >> 16)) * 0x1p-31f - 1.0f);
  }
}

}  // namespace

void fill_random(cudaStream_t stream, void* values, std::size_t elems, std::uint32_t seed) {
  random_kernel<<<1024, 256, 0, stream>>>(static_cast<__nv_bfloat16*>(values), elems, seed);
}

void spin(cudaStream_t stream, std::int64_t nanoseconds) { spin_kernel<<<1, 1, 0, stream>>>(nanoseconds); }

void hold(cudaStream_t stream, GateCell* gate, std::int64_t limit_ns) {
  hold_kernel<<<1, 1, 0, stream>>>(gate, limit_ns);
}

void mix(cudaStream_t stream, std::int64_t* out, const std::int64_t* a, const std::int64_t* b, std::int64_t id) {
  mix_kernel<<<1, 1, 0, stream>>>(out, a, b, id);
}

void launch_refused(cudaStream_t stream) { empty_kernel<<<1, 4096, 0, stream>>>(); }
void launch_trapping(cudaStream_t stream) { trapping_kernel<<<1, 1, 0, stream>>>(); }

}  // namespace strake::kernels::cuda
