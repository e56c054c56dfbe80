#include "kernels/embedding.h"

#include <fmt/format.h>

#include "kernels/launch.h"
#include "runtime/base/check.h"

namespace strake::kernels {
namespace {

// x or dx [B, T, C], tokens [B, T], tables [V, C] and [T_max, C] fit each other.
// The tables may be gradients.
void check_places(std::string_view operation, const Tensor& x, const Tensor& tokens) {
  check_leading_operand(operation, "x", x, 3);
  check_operand(operation, "tokens", tokens, DType::kI32, {x.size(0), x.size(1)});
}

void check_tokens(std::string_view operation, const Tensor& x, const Tensor& token_table) {
  check_leading_operand(operation, "token_table", token_table, 2);
  check_gradient(operation, "token_table", token_table, x.dtype(), {token_table.size(0), x.size(2)});
}

void check_positions(std::string_view operation, const Tensor& x, const Tensor& position_table) {
  check_leading_operand(operation, "position_table", position_table, 2);
  check_gradient(operation, "position_table", position_table, x.dtype(), {position_table.size(0), x.size(2)});
  STRAKE_CHECK(x.size(1) <= position_table.size(0), fmt::format("{}: {} tokens in a sequence, positions for {}",
                                                                operation, x.size(1), position_table.size(0)));
}

double bytes_of(const Tensor& tensor) { return tensor.defined() ? static_cast<double>(tensor.extent_bytes()) : 0; }

}  // namespace

void embedding_forward(Stream& stream, Label label, const EmbeddingForward& a) {
  constexpr std::string_view kName = "embedding_forward";
  check_places(kName, a.x, a.tokens);
  check_tokens(kName, a.x, a.token_table);
  if (a.position_table.defined()) check_positions(kName, a.x, a.position_table);
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
  const bool token_rows = a.dtoken_table.defined(), positions = a.dposition_table.defined();
  check_places(kName, a.dx, a.tokens);
  if (token_rows) check_tokens(kName, a.dx, a.dtoken_table);
  if (positions) check_positions(kName, a.dx, a.dposition_table);
  STRAKE_CHECK(token_rows || positions, "embedding_backward: of no table");
  Tensor reads[4] = {a.dx}, writes[2];
  std::size_t read_tensors = 1, written_tensors = 0;
  double bytes = 0;
  const auto gradient = [&](const Tensor& table, Accumulate accumulate, double touched_bytes) {
    const bool add = accumulate == Accumulate::kAdd;
    if (add) reads[read_tensors++] = table;
    writes[written_tensors++] = table;
    bytes += touched_bytes + (add ? 0 : bytes_of(table));
  };
  // Of dx, and of the rows that it is added to.
  if (token_rows) {
    reads[read_tensors++] = a.tokens;
    gradient(a.dtoken_table, a.accumulate_token, bytes_of(a.tokens) + 3 * bytes_of(a.dx));
  }
  if (positions) gradient(a.dposition_table, a.accumulate_position, 3 * bytes_of(a.dx));
  launch(stream,
         {.label = label,
          .kind = kName,
          .reads = std::span(reads).first(read_tensors),
          .writes = std::span(writes).first(written_tensors),
          .bytes = bytes},
         a);
}

}  // namespace strake::kernels
