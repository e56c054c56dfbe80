// Operations that only tests and injected delays use.
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

}  // namespace

void spin(cudaStream_t stream, std::int64_t nanoseconds) { spin_kernel<<<1, 1, 0, stream>>>(nanoseconds); }

}  // namespace strake::kernels::cuda
