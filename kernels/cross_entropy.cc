#include "kernels/cross_entropy.h"

#include <fmt/format.h>

#include "kernels/cpu/bodies.h"
#include "kernels/cuda/bodies.h"
#include "kernels/launch.h"
#include "runtime/base/check.h"

namespace strake::kernels {
namespace {

void check_shapes(std::string_view operation, const Tensor& logits, const Tensor& losses, const Tensor& targets,
                  std::int64_t vocab) {
  check_leading_operand(operation, "logits", logits, 2);
  check_operand(operation, "losses", losses, stats_dtype(logits.dtype()), {logits.size(0)});
  check_operand(operation, "targets", targets, DType::kI32, {logits.size(0)});
  STRAKE_CHECK(vocab > 0 && vocab <= logits.size(1),
               fmt::format("{}: vocab {} with logits {}", operation, vocab, logits.describe()));
}

}  // namespace

void cross_entropy_forward_backward(Stream& stream, Label label, const Tensor& logits, const Tensor& losses,
                                    const Tensor& targets, std::int64_t vocab, double gradient_scale) {
  constexpr std::string_view kName = "cross_entropy_forward_backward";
  check_shapes(kName, logits, losses, targets, vocab);
  const Tensor reads[] = {logits, targets};
  const Tensor writes[] = {logits, losses};
  launch(
      stream, {.label = label, .kind = kName, .reads = reads, .writes = writes},
      [&] { return cpu::cross_entropy_forward_backward(logits, losses, targets, vocab, gradient_scale); },
      [&](auto&) { return cuda::cross_entropy(logits, losses, targets, vocab, gradient_scale, true); });
}

void cross_entropy_forward(Stream& stream, Label label, const Tensor& losses, const Tensor& logits,
                           const Tensor& targets, std::int64_t vocab) {
  constexpr std::string_view kName = "cross_entropy_forward";
  check_shapes(kName, logits, losses, targets, vocab);
  const Tensor reads[] = {logits, targets};
  const Tensor writes[] = {losses};
  launch(
      stream, {.label = label, .kind = kName, .reads = reads, .writes = writes},
      [&] { return cpu::cross_entropy_forward(losses, logits, targets, vocab); },
      [&](auto&) { return cuda::cross_entropy(logits, losses, targets, vocab, 0, false); });
}

void accumulate_loss(Stream& stream, Label label, const Tensor& total, const Tensor& losses, double scale,
                     bool accumulate) {
  constexpr std::string_view kName = "accumulate_loss";
  check_leading_operand(kName, "losses", losses, 1);
  check_operand(kName, "total", total, losses.dtype(), {1});
  const Tensor reads[] = {losses, total};
  const Tensor writes[] = {total};
  launch(
      stream, {.label = label, .kind = kName, .reads = std::span(reads).first(accumulate ? 2 : 1), .writes = writes},
      [&] { return cpu::accumulate_loss(total, losses, scale, accumulate); },
      [&](auto&) { return cuda::accumulate_loss(total, losses, scale, accumulate); });
}

}  // namespace strake::kernels
