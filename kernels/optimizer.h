// Gradient norm, clipping and AdamW over flat arenas (ParamLayout).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/device/device.h"

namespace strake::kernels {

// A contiguous range of the flat arenas that belongs to one logical parameter (or one shard of it).
struct FlatSegment {
  std::int64_t begin_elems;
  std::int64_t size_elems;
  bool weight_decay;
};

// The norm is a sum over fixed blocks of this many elements of each segment, added in segment and block
// order, each block summed in a fixed order: it does not depend on buckets, sharding or overlap.
inline constexpr std::int64_t kNormBlockElems = 32 * 1024;

// Number of block sums of these segments.
std::int64_t norm_blocks(std::span<const FlatSegment> segments);

// norm[0] = sqrt(sum of squares of gradients); clip[0] = min(1, max_norm / (norm + 1e-6)), 1 when max_norm <= 0. Where
// the norm is not finite clip[0] is NaN: an update with it leaves no weight that could be taken for a trained one.
// gradients: flat. block_sums [norm_blocks] f64, norm [1] f32 (f64 when gradients are f64), clip the same.
void gradient_norm(Stream& stream, Label label, const Tensor& norm, const Tensor& clip, const Tensor& block_sums,
                   const Tensor& gradients, std::span<const FlatSegment> segments, double max_norm);

struct AdamWStep {
  double learning_rate;
  double beta1;
  double beta2;
  double epsilon;
  double weight_decay;  // applied to segments that ask for it, decoupled (Loshchilov and Hutter 2019)
  std::int64_t step;    // from 1, for bias correction
};

// One AdamW update of every segment with gradients scaled by clip[0], read on the device.
// weights, first_moment, second_moment: flat, f32 (or all f64); gradients: flat, the same type, or bf16.
// compute_weights: the updated weights rounded to bf16, where the model computes in bf16; else undefined.
void adamw(Stream& stream, Label label, const Tensor& weights, const Tensor& first_moment, const Tensor& second_moment,
           const Tensor& gradients, const Tensor& clip, std::span<const FlatSegment> segments, const AdamWStep& step,
           const Tensor& compute_weights = Tensor());

}  // namespace strake::kernels
