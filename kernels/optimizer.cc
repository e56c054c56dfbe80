#include "kernels/optimizer.h"

#include <fmt/format.h>

#include <cmath>

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
  for (const FlatSegment& segment : segments) blocks += norm_blocks(segment.size_elems);
  return blocks;
}

AdamWScalars adamw_scalars(const AdamWOptions& options, double learning_rate, std::int64_t step) {
  STRAKE_CHECK(step >= 1, fmt::format("adamw: step is {}, counts from 1", step));
  const double steps = static_cast<double>(step);
  return {learning_rate, 1 - std::pow(options.beta1, steps), 1 - std::pow(options.beta2, steps)};
}

void square_sums(Stream& stream, Label label, const SquareSums& a) {
  constexpr std::string_view kName = "square_sums";
  check_leading_operand(kName, "gradients", a.gradients, 1);
  check_operand(kName, "block_sums", a.block_sums, DType::kF64, {norm_blocks(a.segments)});
  check_segments(kName, a.segments, a.gradients);
  const Tensor reads[] = {a.gradients};
  const Tensor writes[] = {a.block_sums};
  launch(stream, {.label = label, .kind = kName, .reads = reads, .writes = writes}, a);
}

void gradient_norm(Stream& stream, Label label, const GradientNorm& a) {
  constexpr std::string_view kName = "gradient_norm";
  check_leading_operand(kName, "norm", a.norm, 1);
  check_operand(kName, "norm", a.norm, a.norm.dtype(), {1});
  check_operand(kName, "clip", a.clip, a.norm.dtype(), {1});
  check_operand(kName, "block_sums", a.block_sums, DType::kF64, {a.block_sums.elems()});
  const Tensor reads[] = {a.block_sums};
  const Tensor writes[] = {a.norm, a.clip};
  launch(stream, {.label = label, .kind = kName, .reads = reads, .writes = writes}, a);
}

void adamw(Stream& stream, Label label, const AdamW& a) {
  constexpr std::string_view kName = "adamw";
  check_leading_operand(kName, "weights", a.weights, 1);
  check_operand(kName, "first_moment", a.first_moment, a.weights.dtype(), {a.weights.elems()});
  check_operand(kName, "second_moment", a.second_moment, a.weights.dtype(), {a.weights.elems()});
  check_leading_operand(kName, "gradients", a.gradients, 1);
  const bool rounds = a.compute_weights.defined();
  if (rounds) check_operand(kName, "compute_weights", a.compute_weights, DType::kBF16, {a.weights.elems()});
  if (a.gradients.dtype() != DType::kBF16 || !rounds)
    check_operand(kName, "gradients", a.gradients, a.weights.dtype(), {a.weights.elems()});
  check_operand(kName, "clip", a.clip, a.weights.dtype(), {1});
  check_segments(kName, a.segments, a.weights);
  check_operand(kName, "scalars", a.scalars, DType::kF64, {std::tuple_size_v<AdamWScalars>});
  const Tensor reads[] = {a.gradients, a.clip, a.scalars, a.weights, a.first_moment, a.second_moment};
  const Tensor writes[] = {a.weights, a.first_moment, a.second_moment, a.compute_weights};
  launch(stream, {.label = label, .kind = kName, .reads = reads, .writes = std::span(writes).first(rounds ? 4 : 3)}, a);
}

}  // namespace strake::kernels
