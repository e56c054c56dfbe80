// One operation on two devices: the CUDA kernel beside the CPU device's on the same inputs, outputs poisoned with NaN.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <random>
#include <vector>

#include "kernels/cuda/make_kernels.h"
#include "runtime/device/cpu/cpu_device.h"
#include "runtime/device/cuda/cuda_device.h"
#include "runtime/device/host_memory.h"
#include "runtime/device/recording.h"

namespace strake::test {

#define STRAKE_NEEDS_GPU() \
  if (cuda_device_number() == 0) GTEST_SKIP() << "no GPU: " << cuda_unavailable_reason()

enum class Role {
  kValue,     // in the type under test
  kGradient,  // in the gradient type under test
  kStat,      // f32 always
  kSum,       // f64 always
  kToken,     // i32
};

struct Argument {
  std::vector<std::int64_t> shape;
  Role role = Role::kValue;
  std::vector<float> values = {};  // empty: an output, NaN before
  std::int64_t elems() const {
    std::int64_t product = 1;
    for (const std::int64_t extent : shape) product *= extent;
    return product;
  }
};

struct Types {
  DType value = DType::kBF16;
  DType gradient = DType::kBF16;
};

using Arguments = std::vector<Argument>;
using Launch = std::function<void(Stream&, const std::vector<Tensor>&)>;

inline std::vector<float> normal(std::int64_t elems, std::uint32_t seed, float deviation = 1) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> distribution(0, deviation);
  std::vector<float> values(static_cast<std::size_t>(elems));
  for (float& value : values) value = distribution(engine);
  return values;
}
inline std::vector<float> tokens(std::int64_t elems, std::int64_t vocab, std::uint32_t seed) {
  std::mt19937 engine(seed);
  std::vector<float> values(static_cast<std::size_t>(elems));
  for (float& value : values) value = static_cast<float>(engine() % static_cast<std::uint32_t>(vocab));
  return values;
}

// Runs the operation on `device` and returns every argument's values afterwards.
inline std::vector<std::vector<float>> run_on(Device& device, Types types, const Arguments& arguments,
                                              const Launch& launch) {
  Arena memory("arguments", MemoryKind::kDevice), host("staging", MemoryKind::kHost),
      scratch("workspace", MemoryKind::kDevice);
  std::vector<Tensor> tensors, staging;
  for (const Argument& argument : arguments) {
    const DType dtype = argument.role == Role::kToken      ? DType::kI32
                        : argument.role == Role::kStat     ? DType::kF32
                        : argument.role == Role::kSum      ? DType::kF64
                        : argument.role == Role::kGradient ? types.gradient
                                                           : types.value;
    tensors.push_back(Tensor::reserve(memory, dtype, argument.shape));
    staging.push_back(Tensor::reserve(host, dtype, argument.shape));
  }
  // What the kernels need beside their operands is learned by planning, as in a run.
  PlanDevice plan(device);
  {
    const auto stream = plan.make_stream("compute", StreamPriority::kNormal);
    launch(*stream, tensors);
  }
  const auto stream = device.make_stream("compute", StreamPriority::kNormal);
  const Tensor workspace =
      Tensor::reserve(scratch, DType::kU8, {static_cast<std::int64_t>(plan.recording().workspace_bytes(0)) + 256});
  memory.allocate(device);
  host.allocate(device);
  scratch.allocate(device);
  stream->set_workspace(workspace);

  for (std::size_t i = 0; i < arguments.size(); ++i) {
    for (std::size_t k = 0; k < static_cast<std::size_t>(arguments[i].elems()); ++k) {
      const float value = arguments[i].values.empty() ? NAN : arguments[i].values[k];
      switch (staging[i].dtype()) {
        case DType::kI32:
          host_span<std::int32_t>(staging[i])[k] = static_cast<std::int32_t>(value);
          break;
        case DType::kBF16:
          host_span<BFloat16>(staging[i])[k] = to_bfloat16(value);
          break;
        case DType::kF64:
          host_span<double>(staging[i])[k] = value;
          break;
        default:
          host_span<float>(staging[i])[k] = value;
      }
    }
    stream->copy({"upload"}, tensors[i], staging[i]);
  }
  launch(*stream, tensors);
  std::vector<std::vector<float>> out;
  for (std::size_t i = 0; i < arguments.size(); ++i) stream->copy({"download"}, staging[i], tensors[i]);
  stream->synchronize();
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    std::vector<float> values(static_cast<std::size_t>(arguments[i].elems()));
    for (std::size_t k = 0; k < values.size(); ++k) {
      switch (staging[i].dtype()) {
        case DType::kI32:
          values[k] = static_cast<float>(host_span<std::int32_t>(staging[i])[k]);
          break;
        case DType::kBF16:
          values[k] = to_float(host_span<BFloat16>(staging[i])[k]);
          break;
        case DType::kF64:
          values[k] = static_cast<float>(host_span<double>(staging[i])[k]);
          break;
        default:
          values[k] = host_span<float>(staging[i])[k];
      }
    }
    out.push_back(std::move(values));
  }
  return out;
}

// ||out - reference|| / ||reference||; NaN never passes.
inline double relative_error(const std::vector<float>& out, const std::vector<float>& reference) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < out.size(); ++i) {
    difference += (static_cast<double>(out[i]) - reference[i]) * (static_cast<double>(out[i]) - reference[i]);
    norm += static_cast<double>(reference[i]) * reference[i];
  }
  return norm == 0 ? std::sqrt(difference) : std::sqrt(difference / norm);
}

// The arguments as the types hold them.
inline Arguments rounded(Types types, Arguments arguments) {
  for (Argument& argument : arguments) {
    const bool rounds = (argument.role == Role::kValue && types.value == DType::kBF16) ||
                        (argument.role == Role::kGradient && types.gradient == DType::kBF16);
    for (float& value : argument.values) value = rounds ? to_float(to_bfloat16(value)) : value;
  }
  return arguments;
}

// The CUDA kernel in `types` against the CPU device in f32 on the same rounded inputs, for the arguments in `outputs`;
// and the same bits when run again. Tolerance: 1e-2 where results are rounded to bf16, 1e-5 in f32.
inline void expect_as_on_cpu(Types types, const Arguments& unrounded, const std::vector<std::size_t>& outputs,
                             const Launch& launch, double f32_tolerance = 1e-5) {
  const Arguments arguments = rounded(types, unrounded);
  const auto cpu = make_cpu_device();
  const auto cuda = make_cuda_device(0, kernels::cuda::make_kernels(/*deterministic=*/true));
  const auto reference = run_on(*cpu, {DType::kF32, DType::kF32}, arguments, launch);
  const auto out = run_on(*cuda, types, arguments, launch);
  const auto again = run_on(*cuda, types, arguments, launch);
  const double tolerance = types.value == DType::kBF16 ? 1e-2 : f32_tolerance;
  for (const std::size_t index : outputs) {
    EXPECT_LE(relative_error(out[index], reference[index]), tolerance) << "argument " << index;
    EXPECT_EQ(out[index], again[index]) << "argument " << index << " differs between two runs";
  }
}

}  // namespace strake::test
