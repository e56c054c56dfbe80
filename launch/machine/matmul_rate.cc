#include "launch/machine/matmul_rate.h"

#include <algorithm>
#include <chrono>

#include "kernels/matmul.h"
#include "runtime/base/random.h"
#include "runtime/device/host_memory.h"

namespace strake::launch {

double measure_matmul_rate(Device& device) {
  constexpr std::int64_t kSize = 512;
  constexpr int kRepeats = 12;
  Arena memory("matmul probe", MemoryKind::kDevice), staging("matmul probe input", MemoryKind::kHost);
  const Tensor x = Tensor::reserve(memory, DType::kF32, {kSize, kSize});
  const Tensor weight = Tensor::reserve(memory, DType::kF32, {kSize, kSize});
  const Tensor y = Tensor::reserve(memory, DType::kF32, {kSize, kSize});
  const Tensor values = Tensor::reserve(staging, DType::kF32, {kSize, kSize});
  memory.allocate(device);
  staging.allocate(device);
  const auto stream = device.make_stream("probe", StreamPriority::kNormal);
  const Philox random(random_key(0, "matmul probe"));
  std::uint64_t index = 0;
  for (float& value : host_span<float>(values)) value = static_cast<float>(random.uniform(index++)) - 0.5f;
  stream->copy({"probe input"}, x, values);
  stream->copy({"probe weight"}, weight, values);

  double best_s = 0;
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    Mark begin = device.make_mark("probe begins"), end = device.make_mark("probe ends");
    stream->mark(begin);
    kernels::linear_forward(*stream, {"probe"}, {y, x, weight});
    stream->mark(end);
    stream->synchronize();
    const double time_s = std::chrono::duration<double>(device.elapsed(begin, end)).count();
    if (repeat == 1 || (repeat > 1 && time_s < best_s)) best_s = time_s;
  }
  return 2.0 * kSize * kSize * kSize / best_s;
}

}  // namespace strake::launch
