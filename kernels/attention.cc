#include "kernels/attention.h"

#include "kernels/cpu/bodies.h"
#include "kernels/cuda/bodies.h"
#include "kernels/launch.h"
#include "runtime/base/check.h"

namespace strake::kernels {
namespace {

reference::AttentionShape shape_of(std::string_view operation, const Tensor& qkv, int heads) {
  check_leading_operand(operation, "qkv", qkv, 3);
  STRAKE_CHECK(heads > 0 && qkv.size(2) % (3 * heads) == 0, std::string(operation) + ": qkv " + qkv.describe() +
                                                                " does not divide into q, k, v of " +
                                                                std::to_string(heads) + " heads");
  return {.batch = qkv.size(0), .length = qkv.size(1), .heads = heads, .head_size = qkv.size(2) / (3 * heads)};
}

// `products` matrix products of [length, head_size] x [head_size, length] a head, the causal half of each.
double attention_flops(const reference::AttentionShape& shape, int products) {
  return products * 0.5 * static_cast<double>(shape.batch * shape.heads) *
         matmul_flops(shape.length, shape.length + 1, shape.head_size);
}

}  // namespace

void attention_forward(Stream& stream, Label label, const Tensor& out, const Tensor& stats, const Tensor& qkv,
                       int heads) {
  constexpr std::string_view kName = "attention_forward";
  const reference::AttentionShape shape = shape_of(kName, qkv, heads);
  check_operand(kName, "out", out, qkv.dtype(), {shape.batch, shape.length, shape.channels()});
  check_operand(kName, "stats", stats, stats_dtype(qkv.dtype()), {shape.batch, shape.heads, shape.length});

  const Tensor reads[] = {qkv};
  const Tensor writes[] = {out, stats};
  const Operation operation = {
      .label = label, .kind = kName, .reads = reads, .writes = writes, .flops = attention_flops(shape, 2)};
  launch(
      stream, operation, [&] { return cpu::attention_forward(out, stats, qkv, shape); },
      [&](auto& op) { return cuda::attention_forward(stream.device(), op, out, stats, qkv, heads); });
}

void attention_backward(Stream& stream, Label label, const Tensor& dqkv, const Tensor& dout, const Tensor& qkv,
                        const Tensor& out, const Tensor& stats, const Tensor& scratch, int heads) {
  constexpr std::string_view kName = "attention_backward";
  const reference::AttentionShape shape = shape_of(kName, qkv, heads);
  check_operand(kName, "dqkv", dqkv, qkv.dtype(), {shape.batch, shape.length, 3 * shape.channels()});
  check_operand(kName, "dout", dout, qkv.dtype(), {shape.batch, shape.length, shape.channels()});
  check_operand(kName, "out", out, qkv.dtype(), {shape.batch, shape.length, shape.channels()});
  check_operand(kName, "stats", stats, stats_dtype(qkv.dtype()), {shape.batch, shape.heads, shape.length});
  const std::int64_t scratch_elems =
      attention_backward_scratch_elems(stream.device().target(), shape.batch, shape.length, shape.channels(), heads);
  if (scratch_elems > 0) check_operand(kName, "scratch", scratch, qkv.dtype(), {scratch_elems});

  const Tensor reads[] = {dout, qkv, out, stats};
  const Tensor writes[] = {dqkv, scratch};
  const Operation operation = {
      .label = label,
      .kind = kName,
      .reads = reads,
      .writes = std::span(writes).first(scratch_elems > 0 ? 2 : 1),
      .flops = attention_flops(shape, 4),  // the model's; the scores computed once more are not counted
  };
  launch(
      stream, operation, [&] { return cpu::attention_backward(dqkv, dout, qkv, out, stats, scratch, shape); },
      [&](auto& op) { return cuda::attention_backward(stream.device(), op, dqkv, dout, qkv, out, stats, heads); });
}

std::int64_t attention_backward_scratch_elems(DeviceKind device, std::int64_t batch, std::int64_t tokens,
                                              std::int64_t channels, int heads) {
  switch (device) {
    case DeviceKind::kCpu:
      return cpu::attention_backward_scratch_elems({batch, tokens, heads, channels / heads});
    case DeviceKind::kCuda:  // takes its scratch from the stream's workspace
    case DeviceKind::kPlan:
      break;
  }
  return 0;
}

}  // namespace strake::kernels
