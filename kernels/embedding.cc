#include "kernels/embedding.h"

#include <fmt/format.h>

#include "kernels/launch.h"
#include "runtime/base/check.h"

namespace strake::kernels {
namespace {

// x or dx [B, T, C], tokens [B, T], tables [V, C] and [T_max, C] fit each other.
// The tables may be gradients.
void check_shapes(std::string_view operation, const Tensor& x, const Tensor& tokens, const Tensor& token_table,
                  const Tensor& position_table) {
  check_leading_operand(operation, "x", x, 3);
  check_operand(operation, "tokens", tokens, DType::kI32, {x.size(0), x.size(1)});
  check_leading_operand(operation, "token_table", token_table, 2);
  check_gradient(operation, "token_table", token_table, x.dtype(), {token_table.size(0), x.size(2)});
  if (!position_table.defined()) return;
  check_leading_operand(operation, "position_table", position_table, 2);
  check_gradient(operation, "position_table", position_table, x.dtype(), {position_table.size(0), x.size(2)});
  STRAKE_CHECK(x.size(1) <= position_table.size(0), fmt::format("{}: {} tokens in a sequence, positions for {}",
                                                                operation, x.size(1), position_table.size(0)));
}

double bytes_of(const Tensor& tensor) { return tensor.defined() ? static_cast<double>(tensor.extent_bytes()) : 0; }

}  // namespace

void embedding_forward(Stream& stream, Label label, const EmbeddingForward& a) {
  constexpr std::string_view kName = "embedding_forward";
  check_shapes(kName, a.x, a.tokens, a.token_table, a.position_table);
  const Tensor reads[] = {a.tokens, a.token_table, a.position_table};
  const Tensor writes[] = {a.x};
  const std::size_t tables = a.position_table.defined() ? 2 : 1;
  // One row of each table for each place, however large the tables are.
  launch(stream,
         {.label = label,
          .kind = kName,
          .reads = std::span(reads).first(1 + tables),
          .writes = writes,
          .bytes = bytes_of(a.tokens) + static_cast<double>(1 + tables) * bytes_of(a.x)},
         a);
}

void embedding_backward(Stream& stream, Label label, const EmbeddingBackward& a) {
  constexpr std::string_view kName = "embedding_backward";
  check_shapes(kName, a.dx, a.tokens, a.dtoken_table, a.dposition_table);
  const bool add_token = a.accumulate_token == Accumulate::kAdd;
  const bool positions = a.dposition_table.defined();
  const bool add_position = positions && a.accumulate_position == Accumulate::kAdd;
  Tensor reads[4] = {a.dx, a.tokens};
  std::size_t read_tensors = 2;
  if (add_token) reads[read_tensors++] = a.dtoken_table;
  if (add_position) reads[read_tensors++] = a.dposition_table;
  const Tensor writes[] = {a.dtoken_table, a.dposition_table};
  launch(stream,
         {.label = label,
          .kind = kName,
          .reads = std::span(reads).first(read_tensors),
          .writes = std::span(writes).first(positions ? 2 : 1),
          .bytes = bytes_of(a.tokens) + (positions ? 6 : 3) * bytes_of(a.dx) +
                   (add_token ? 0 : bytes_of(a.dtoken_table)) + (add_position ? 0 : bytes_of(a.dposition_table))},
         a);
}

}  // namespace strake::kernels
