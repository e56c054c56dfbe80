// EmbeddingBlock: tokens to the residual stream.
// Threads: the training thread.
#pragma once

#include <optional>

#include "models/blocks/residual.h"
#include "models/parameters/param_access.h"
#include "models/transformer_shape.h"

namespace strake::models {

class EmbeddingBlock {
 public:
  // Adds wte.weight [padded vocab, C] and, where positions are learned, wpe.weight [T, C].
  EmbeddingBlock(ParamLayout& layout, const TransformerShape& shape);

  void forward(const Pass& pass, const Tensor& x, const Tensor& tokens) const;  // x [N, C], tokens [B, T]
  // The token table's gradient holds the head's part already where they are one parameter.
  void backward(const Pass& pass, const Tensor& d_x, const Tensor& tokens) const;

  ParamId token_table() const { return token_table_; }

 private:
  bool tied_;
  ParamId token_table_;
  std::optional<ParamId> position_table_;
};

}  // namespace strake::models
