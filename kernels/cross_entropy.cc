#include "kernels/cross_entropy.h"

#include <fmt/format.h>

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

void cross_entropy_forward_backward(Stream& stream, Label label, const CrossEntropyForwardBackward& a) {
  constexpr std::string_view kName = "cross_entropy_forward_backward";
  check_shapes(kName, a.logits, a.losses, a.targets, a.vocab);
  const Tensor reads[] = {a.logits, a.targets};
  const Tensor writes[] = {a.logits, a.losses};
  launch(stream, {.label = label, .kind = kName, .reads = reads, .writes = writes}, a);
}

void cross_entropy_forward(Stream& stream, Label label, const CrossEntropyForward& a) {
  constexpr std::string_view kName = "cross_entropy_forward";
  check_shapes(kName, a.logits, a.losses, a.targets, a.vocab);
  const Tensor reads[] = {a.logits, a.targets};
  const Tensor writes[] = {a.losses};
  launch(stream, {.label = label, .kind = kName, .reads = reads, .writes = writes}, a);
}

void accumulate_loss(Stream& stream, Label label, const AccumulateLoss& a) {
  constexpr std::string_view kName = "accumulate_loss";
  check_leading_operand(kName, "losses", a.losses, 1);
  check_operand(kName, "total", a.total, a.losses.dtype(), {1});
  const Tensor reads[] = {a.losses, a.total};
  const Tensor writes[] = {a.total};
  launch(stream,
         {.label = label, .kind = kName, .reads = std::span(reads).first(a.accumulate ? 2 : 1), .writes = writes}, a);
}

}  // namespace strake::kernels
