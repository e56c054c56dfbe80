#include "kernels/attention.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "kernels/launch.h"
#include "runtime/base/check.h"

namespace strake::kernels {
namespace {

// Heads of `count` in the tokens of q, wherever they lie.
void check_heads(std::string_view operation, std::string_view operand, const Tensor& heads, const Tensor& q,
                 std::int64_t count) {
  STRAKE_CHECK(heads.defined() && heads.rank() == 4 && heads.dtype() == q.dtype() && heads.size(0) == q.size(0) &&
                   heads.size(1) == q.size(1) && heads.size(2) == count && heads.size(3) == q.size(3),
               fmt::format("{}: {} is {}, must be {}[{}, {}, {}, {}]", operation, operand, heads.describe(),
                           name_of(q.dtype()), q.size(0), q.size(1), count, q.size(3)));
  STRAKE_CHECK(heads.stride(3) == 1 || heads.size(3) == 1,
               fmt::format("{}: the channels of a head of {} must lie beside each other", operation, operand));
}

AttentionShape checked_shape(std::string_view operation, const Tensor& q, const Tensor& k, const Tensor& v) {
  STRAKE_CHECK(q.defined() && q.rank() == 4 && k.defined() && k.rank() == 4,
               fmt::format("{}: q is {}, k is {}, must have 4 axes", operation, q.describe(), k.describe()));
  STRAKE_CHECK(q.dtype() == DType::kF32 || q.dtype() == DType::kF64 || q.dtype() == DType::kBF16,
               fmt::format("{}: q is {}, must be f32, f64 or bf16", operation, q.describe()));
  const AttentionShape shape = attention_shape(q, k);
  check_heads(operation, "q", q, q, shape.heads);
  check_heads(operation, "k", k, q, shape.kv_heads);
  check_heads(operation, "v", v, q, shape.kv_heads);
  STRAKE_CHECK(
      shape.kv_heads > 0 && shape.heads % shape.kv_heads == 0,
      fmt::format("{}: {} query heads do not divide among {} key heads", operation, shape.heads, shape.kv_heads));
  return shape;
}

// `products` matrix products of [length, head_size] x [head_size, length] a query head, the causal half of each.
double attention_flops(const AttentionShape& shape, int products) {
  return products * 0.5 * static_cast<double>(shape.batch * shape.heads) *
         matmul_flops(shape.length, shape.length + 1, shape.head_size);
}

// The one buffer that heads of q, k and v fill together, every byte of it; undefined where they do not. Declared as a
// whole it is an overwrite: what lay there before is not missed.
Tensor filled_by(const Tensor& q, const Tensor& k, const Tensor& v) {
  const std::int64_t size = q.size(3), row = (q.size(2) + 2 * k.size(2)) * size;
  const auto elem_bytes = static_cast<std::int64_t>(size_bytes(q.dtype()));
  const std::size_t begin = std::min({q.offset_bytes(), k.offset_bytes(), v.offset_bytes()});
  std::vector<std::int64_t> heads;  // where each begins in a row
  for (const Tensor* part : {&q, &k, &v}) {
    const bool in_rows = &part->arena() == &q.arena() && (part->size(1) == 1 || part->stride(1) == row) &&
                         (part->size(0) == 1 || part->stride(0) == part->size(1) * row);
    if (!in_rows) return {};
    for (std::int64_t head = 0; head < part->size(2); ++head) {
      heads.push_back(static_cast<std::int64_t>(part->offset_bytes() - begin) / elem_bytes + head * part->stride(2));
    }
  }
  std::sort(heads.begin(), heads.end());
  for (std::size_t i = 0; i < heads.size(); ++i) {
    if (heads[i] != static_cast<std::int64_t>(i) * size) return {};
  }
  return Tensor(q.arena(), begin, q.dtype(), {q.size(0), q.size(1), row});
}

}  // namespace

void attention_forward(Stream& stream, Label label, const AttentionForward& a) {
  constexpr std::string_view kName = "attention_forward";
  const AttentionShape shape = checked_shape(kName, a.q, a.k, a.v);
  check_operand(kName, "out", a.out, a.q.dtype(), {shape.batch, shape.length, shape.heads * shape.head_size});
  check_operand(kName, "stats", a.stats, stats_dtype(a.q.dtype()), {shape.batch, shape.heads, shape.length});

  const Tensor reads[] = {a.q, a.k, a.v};
  const Tensor writes[] = {a.out, a.stats};
  launch(stream, {.label = label, .kind = kName, .reads = reads, .writes = writes, .flops = attention_flops(shape, 2)},
         a);
}

void attention_backward(Stream& stream, Label label, const AttentionBackward& a) {
  constexpr std::string_view kName = "attention_backward";
  const AttentionShape shape = checked_shape(kName, a.q, a.k, a.v);
  check_heads(kName, "dq", a.dq, a.q, shape.heads);
  check_heads(kName, "dk", a.dk, a.q, shape.kv_heads);
  check_heads(kName, "dv", a.dv, a.q, shape.kv_heads);
  check_operand(kName, "dout", a.dout, a.q.dtype(), {shape.batch, shape.length, shape.heads * shape.head_size});
  check_operand(kName, "out", a.out, a.q.dtype(), {shape.batch, shape.length, shape.heads * shape.head_size});
  check_operand(kName, "stats", a.stats, stats_dtype(a.q.dtype()), {shape.batch, shape.heads, shape.length});
  const std::int64_t scratch_elems =
      attention_backward_scratch_elems(stream.device().target(), shape.length, shape.head_size);
  if (scratch_elems > 0) check_operand(kName, "scratch", a.scratch, a.q.dtype(), {scratch_elems});

  const Tensor reads[] = {a.dout, a.q, a.k, a.v, a.out, a.stats};
  const Tensor filled = filled_by(a.dq, a.dk, a.dv);
  std::vector<Tensor> writes{filled};
  if (!filled.defined()) writes = {a.dq, a.dk, a.dv};
  if (scratch_elems > 0) writes.push_back(a.scratch);
  launch(stream,
         {
             .label = label,
             .kind = kName,
             .reads = reads,
             .writes = writes,
             .flops = attention_flops(shape, 4),  // the model's; the scores computed once more are not counted
         },
         a);
}

std::int64_t attention_backward_scratch_elems(DeviceKind device, std::int64_t tokens, std::int64_t head_size) {
  switch (device) {
    case DeviceKind::kCpu:  // dK and dV of one key head, rows padded to whole vectors (of 16 floats at most)
      return 2 * tokens * ((head_size + 15) / 16 * 16);
    case DeviceKind::kCuda:  // takes its scratch from the stream's workspace
    case DeviceKind::kPlan:
      break;
  }
  return 0;
}

AttentionShape attention_shape(const Tensor& q, const Tensor& k) {
  return {.batch = q.size(0), .length = q.size(1), .heads = q.size(2), .kv_heads = k.size(2), .head_size = q.size(3)};
}

HeadStrides head_strides(const Tensor& view) {
  return {.batch = view.stride(0), .token = view.stride(1), .head = view.stride(2)};
}

}  // namespace strake::kernels
