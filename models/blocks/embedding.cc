#include "models/blocks/embedding.h"

#include "kernels/embedding.h"
#include "models/blocks/initial_deviation.h"

namespace strake::models {
namespace {

ParamSpec table(const char* name, std::int64_t rows, std::int64_t channels, FinalAtEnd final_at_end) {
  return {.name = name,
          .global_shape = {rows, channels},
          .final_at_end = final_at_end == FinalAtEnd::kYes,
          .weight_decay = true,
          .initial = {InitialValue::Kind::kNormal, kInitialDeviation}};
}

}  // namespace

ParamSpec token_table_spec(const TransformerShape& shape, FinalAtEnd final_at_end) {
  return table("wte.weight", shape.padded_vocab(), shape.channels, final_at_end);
}

// What is made here becomes final with the last operation of backward.
EmbeddingBlock::EmbeddingBlock(ParamLayout& layout, const TransformerShape& shape, std::optional<ParamId> split_table)
    : tied_(shape.tied_head),
      split_(split_table.has_value()),
      token_table_(split_ ? *split_table : layout.add(token_table_spec(shape, FinalAtEnd::kYes))) {
  if (shape.positions == Positions::kLearned)
    position_table_ = layout.add(table("wpe.weight", shape.sequence, shape.channels, FinalAtEnd::kYes));
}

void EmbeddingBlock::forward(const Pass& pass, const Tensor& x, const Tensor& tokens) const {
  kernels::embedding_forward(pass.compute, pass.forward("embedding"),
                             {.x = x.reshape({tokens.size(0), tokens.size(1), x.size(1)}),
                              .tokens = tokens,
                              .token_table = pass.params.weight(token_table_),
                              .position_table = position_table_ ? pass.params.weight(*position_table_) : Tensor()});
}

void EmbeddingBlock::backward(const Pass& pass, const Tensor& d_x, const Tensor& tokens) const {
  if (!split_ || position_table_) {
    kernels::embedding_backward(pass.compute, pass.backward("embedding"),
                                {.dtoken_table = split_ ? Tensor() : pass.params.gradient(token_table_),
                                 .accumulate_token = tied_ ? kernels::Accumulate::kAdd : pass.accumulate,
                                 .dposition_table = position_table_ ? pass.params.gradient(*position_table_) : Tensor(),
                                 .accumulate_position = pass.accumulate,
                                 .dx = d_x.reshape({tokens.size(0), tokens.size(1), d_x.size(1)}),
                                 .tokens = tokens});
  }
  if (!split_) pass.params.ready(token_table_);
  if (position_table_) pass.params.ready(*position_table_);
  if (split_) pass.params.split_rows(d_x);
}

}  // namespace strake::models
