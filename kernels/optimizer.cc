#include "kernels/optimizer.h"

#include <fmt/format.h>

#include "kernels/cpu/bodies.h"
#include "kernels/cuda/bodies.h"
#include "kernels/launch.h"
#include "runtime/base/check.h"

namespace strake::kernels {
namespace {

void check_segments(std::string_view operation, std::span<const FlatSegment> segments, const Tensor& flat) {
  for (const FlatSegment& segment : segments) {
    STRAKE_CHECK(
        segment.begin_elems >= 0 && segment.size_elems >= 0 && segment.begin_elems + segment.size_elems <= flat.elems(),
        fmt::format("{}: segment [{}, {}) lies outside {}", operation, segment.begin_elems,
                    segment.begin_elems + segment.size_elems, flat.describe()));
  }
}

}  // namespace

std::int64_t norm_blocks(std::span<const FlatSegment> segments) {
  std::int64_t blocks = 0;
  for (const FlatSegment& segment : segments) blocks += (segment.size_elems + kNormBlockElems - 1) / kNormBlockElems;
  return blocks;
}

void gradient_norm(Stream& stream, Label label, const Tensor& norm, const Tensor& clip, const Tensor& block_sums,
                   const Tensor& gradients, std::span<const FlatSegment> segments, double max_norm) {
  constexpr std::string_view kName = "gradient_norm";
  check_leading_operand(kName, "gradients", gradients, 1);
  check_operand(kName, "norm", norm, stats_dtype(gradients.dtype()), {1});
  check_operand(kName, "clip", clip, stats_dtype(gradients.dtype()), {1});
  check_operand(kName, "block_sums", block_sums, DType::kF64, {norm_blocks(segments)});
  check_segments(kName, segments, gradients);
  const Tensor reads[] = {gradients};
  const Tensor writes[] = {norm, clip, block_sums};
  launch(
      stream, {.label = label, .kind = kName, .reads = reads, .writes = writes},
      [&] { return cpu::gradient_norm(norm, clip, block_sums, gradients, segments, max_norm); },
      [&](auto&) { return cuda::gradient_norm(norm, clip, block_sums, gradients, segments, max_norm); });
}

void adamw(Stream& stream, Label label, const Tensor& weights, const Tensor& first_moment, const Tensor& second_moment,
           const Tensor& gradients, const Tensor& clip, std::span<const FlatSegment> segments, const AdamWStep& step,
           const Tensor& compute_weights) {
  constexpr std::string_view kName = "adamw";
  check_leading_operand(kName, "weights", weights, 1);
  check_operand(kName, "first_moment", first_moment, weights.dtype(), {weights.elems()});
  check_operand(kName, "second_moment", second_moment, weights.dtype(), {weights.elems()});
  check_leading_operand(kName, "gradients", gradients, 1);
  const bool rounds = compute_weights.defined();
  if (rounds) check_operand(kName, "compute_weights", compute_weights, DType::kBF16, {weights.elems()});
  if (gradients.dtype() != DType::kBF16 || !rounds)
    check_operand(kName, "gradients", gradients, weights.dtype(), {weights.elems()});
  check_operand(kName, "clip", clip, weights.dtype(), {1});
  check_segments(kName, segments, weights);
  STRAKE_CHECK(step.step >= 1, fmt::format("adamw: step is {}, counts from 1", step.step));
  const Tensor reads[] = {gradients, clip, weights, first_moment, second_moment};
  const Tensor writes[] = {weights, first_moment, second_moment, compute_weights};
  launch(
      stream, {.label = label, .kind = kName, .reads = reads, .writes = std::span(writes).first(rounds ? 4 : 3)},
      [&] { return cpu::adamw(weights, first_moment, second_moment, gradients, clip, segments, step); },
      [&](auto&) {
        return cuda::adamw(weights, first_moment, second_moment, compute_weights, gradients, clip, segments, step);
      });
}

}  // namespace strake::kernels
