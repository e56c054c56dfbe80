#include "launch/machine/memory_rate.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>

namespace strake::launch {

double measure_copy_rate(Device& device) {
  const std::int64_t copied_bytes = std::int64_t{1} << (device.kind() == DeviceKind::kCuda ? 30 : 27);
  constexpr int kRepeats = 5;  // behind one that touches the memory
  Arena memory("copy probe", MemoryKind::kDevice);
  const Tensor from = Tensor::reserve(memory, DType::kU8, {copied_bytes});
  const Tensor to = Tensor::reserve(memory, DType::kU8, {copied_bytes});
  memory.allocate(device);
  const auto stream = device.make_stream("probe", StreamPriority::kNormal);
  stream->zero({"probe memory"}, from);  // pages that were never written are all the same one
  Mark begin = device.make_mark("probe begins"), end = device.make_mark("probe ends");
  double best_s = 0;
  for (int repeat = 0; repeat <= kRepeats; ++repeat) {
    stream->mark(begin);
    stream->copy({"probe"}, to, from);
    stream->mark(end);
    stream->synchronize();
    const double time_s = std::chrono::duration<double>(device.elapsed(begin, end)).count();
    if (repeat == 1 || (repeat > 1 && time_s < best_s)) best_s = time_s;
  }
  return 2.0 * static_cast<double>(copied_bytes) / best_s;
}

std::size_t cpu_cache_bytes() {
  long bytes = 0;
  for (const int level : {_SC_LEVEL2_CACHE_SIZE, _SC_LEVEL3_CACHE_SIZE}) bytes = std::max(bytes, sysconf(level));
  return static_cast<std::size_t>(bytes);
}

}  // namespace strake::launch
