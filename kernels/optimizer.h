// Gradient norm, clipping and AdamW over flat arenas (ParamLayout).
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "kernels/arguments.h"

namespace strake::kernels {

// A contiguous range of the flat arenas that belongs to one logical parameter (or one shard of it).
struct FlatSegment {
  std::int64_t begin_elems;
  std::int64_t size_elems;
  bool weight_decay;
};

// The norm is a sum over fixed blocks of this many elements of each parameter, added in the order of parameters and
// blocks, each block summed in a fixed order: it does not depend on buckets, sharding or overlap. Parameters begin and
// shards are cut at multiples of it (ParamLayout::kAlignmentElems).
inline constexpr std::int64_t kNormBlockElems = 512;

// Number of block sums of a segment of so many elements, and of these segments.
constexpr std::int64_t norm_blocks(std::int64_t elems) { return (elems + kNormBlockElems - 1) / kNormBlockElems; }
std::int64_t norm_blocks(std::span<const FlatSegment> segments);

// block_sums[b] = sum of squares of block b of these segments.
struct SquareSums {
  Tensor block_sums;  // [norm_blocks(segments)] f64
  Tensor gradients;   // flat
  std::span<const FlatSegment> segments;

  Body on_cpu(CpuCode code) const;
  Body on_cuda(Device& device, Operation& operation) const;
};
void square_sums(Stream& stream, Label label, const SquareSums& arguments);

// norm[0] = sqrt(sum of block_sums); clip[0] = min(1, max_norm / (norm + 1e-6)), 1 when max_norm <= 0. Where the norm
// is not finite clip[0] is NaN: an update with it leaves no weight that could be taken for a trained one.
struct GradientNorm {
  Tensor norm, clip;  // [1] f32 (f64 when gradients are f64)
  Tensor block_sums;  // [blocks of all parameters] f64
  double max_norm;

  Body on_cpu(CpuCode code) const;
  Body on_cuda(Device& device, Operation& operation) const;
};
void gradient_norm(Stream& stream, Label label, const GradientNorm& arguments);

struct AdamWOptions {
  double beta1, beta2;
  double epsilon;
  double weight_decay;  // applied to segments that ask for it, decoupled (Loshchilov and Hutter 2019)
};

// What changes from step to step, as it lies in device memory: what is enqueued is then the same in every step.
// {learning rate, 1 - beta1^step, 1 - beta2^step}; step counts from 1.
using AdamWScalars = std::array<double, 3>;
AdamWScalars adamw_scalars(const AdamWOptions& options, double learning_rate, std::int64_t step);

// One AdamW update of every segment with gradients scaled by clip[0]; clip and scalars are read on the device.
struct AdamW {
  Tensor weights, first_moment, second_moment;  // flat, f32 (or all f64)
  Tensor gradients;                             // flat, the same type, or bf16
  Tensor clip;                                  // [1]
  Tensor scalars;                               // f64 [3], of the step
  std::span<const FlatSegment> segments;
  AdamWOptions options;
  Tensor compute_weights = {};  // the updated weights rounded to bf16, where the model computes in bf16; else undefined

  Body on_cpu(CpuCode code) const;
  Body on_cuda(Device& device, Operation& operation) const;
};
void adamw(Stream& stream, Label label, const AdamW& arguments);

// What a segment is updated with, worked out once in double.
struct AdamWFactors {
  double beta1, one_minus_beta1;
  double beta2, one_minus_beta2;
  double epsilon;
  double step_size;            // learning rate / (1 - beta1^step)
  double second_moment_scale;  // 1 / (1 - beta2^step)
  double keep;                 // what decay leaves of a weight: 1 - learning rate * weight decay, or 1
};

// A block of the norm is summed in double, always in this order: kNormLanes partial sums, element i in partial sum
// i % kNormLanes, then the partial sums added pairwise (i and i + half, halving).
inline constexpr std::int64_t kNormLanes = 16;

}  // namespace strake::kernels
