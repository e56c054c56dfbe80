// Operations for timing and tests: random data, a slow operation.
#include "kernels/cuda/device_code.cuh"
#include "kernels/cuda/launches.h"

namespace strake::kernels::cuda {
namespace {

__global__ void spin_kernel(std::int64_t nanoseconds) {
  std::uint64_t begin, now;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(begin));
  do {
    __nanosleep(1000);
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
  } while (static_cast<std::int64_t>(now - begin) < nanoseconds);
}

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

}  // namespace strake::kernels::cuda
