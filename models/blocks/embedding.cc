#include "models/blocks/embedding.h"

#include "kernels/embedding.h"
#include "models/blocks/initial_deviation.h"

namespace strake::models {
namespace {

// All that is final in backward becomes so with its last operation.
ParamSpec table(const char* name, std::int64_t rows, std::int64_t channels) {
  return {.name = name,
          .global_shape = {rows, channels},
          .final_at_end = true,
          .weight_decay = true,
          .initial = {InitialValue::Kind::kNormal, kInitialDeviation}};
}

}  // namespace

EmbeddingBlock::EmbeddingBlock(ParamLayout& layout, const TransformerShape& shape)
    : tied_(shape.tied_head), token_table_(layout.add(table("wte.weight", shape.padded_vocab(), shape.channels))) {
  if (shape.positions == Positions::kLearned)
    position_table_ = layout.add(table("wpe.weight", shape.sequence, shape.channels));
}

void EmbeddingBlock::forward(const Pass& pass, const Tensor& x, const Tensor& tokens) const {
  kernels::embedding_forward(pass.compute, pass.forward("embedding"),
                             {.x = x.reshape({tokens.size(0), tokens.size(1), x.size(1)}),
                              .tokens = tokens,
                              .token_table = pass.params.weight(token_table_),
                              .position_table = position_table_ ? pass.params.weight(*position_table_) : Tensor()});
}

void EmbeddingBlock::backward(const Pass& pass, const Tensor& d_x, const Tensor& tokens) const {
  kernels::embedding_backward(pass.compute, pass.backward("embedding"),
                              {.dtoken_table = pass.params.gradient(token_table_),
                               .accumulate_token = tied_ ? kernels::Accumulate::kAdd : pass.accumulate,
                               .dposition_table = position_table_ ? pass.params.gradient(*position_table_) : Tensor(),
                               .accumulate_position = pass.accumulate,
                               .dx = d_x.reshape({tokens.size(0), tokens.size(1), d_x.size(1)}),
                               .tokens = tokens});
  pass.params.ready(token_table_);
  if (position_table_) pass.params.ready(*position_table_);
}

}  // namespace strake::models
