#include "kernels/pause_stream.h"

#include <thread>

#include "runtime/base/check.h"

#ifdef STRAKE_HAS_CUDA
#include "kernels/cuda/test_kernels.h"
#endif

namespace strake::kernels {

void pause_stream(DeviceKind kind, [[maybe_unused]] NativeStream native, std::chrono::nanoseconds duration) {
  if (kind == DeviceKind::kCuda) {
#ifdef STRAKE_HAS_CUDA
    cuda::spin(static_cast<cudaStream_t>(native.handle), duration.count());
    return;
#endif
  }
  STRAKE_CHECK(kind == DeviceKind::kCpu, "a plan device runs nothing");
  std::this_thread::sleep_for(duration);
}

}  // namespace strake::kernels
