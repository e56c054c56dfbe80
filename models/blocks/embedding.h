// EmbeddingBlock: tokens to the residual stream.
// Threads: the training thread.
#pragma once

#include <optional>

#include "models/blocks/residual.h"
#include "models/parameters/param_access.h"
#include "models/transformer_shape.h"

namespace strake::models {

enum class FinalAtEnd : bool { kNo = false, kYes = true };
// wte.weight [padded vocab, C].
ParamSpec token_table_spec(const TransformerShape& shape, FinalAtEnd final_at_end);

class EmbeddingBlock {
 public:
  // Adds the token table, unless its gradient is split and the head has added it as `split_table`; and, where positions
  // are learned, wpe.weight [T, C].
  EmbeddingBlock(ParamLayout& layout, const TransformerShape& shape, std::optional<ParamId> split_table);

  void forward(const Pass& pass, const Tensor& x, const Tensor& tokens) const;  // x [N, C], tokens [B, T]
  // Before the head's backward: of a split table the ids can be on their way meanwhile.
  void begin_backward(const Pass& pass, const Tensor& tokens) const {
    if (split_) pass.params.split_ids(tokens);
  }
  // The token table's gradient holds the head's part already where they are one parameter. Of a split table it is d_x
  // itself.
  void backward(const Pass& pass, const Tensor& d_x, const Tensor& tokens) const;

  ParamId token_table() const { return token_table_; }

 private:
  bool tied_, split_;
  ParamId token_table_;
  std::optional<ParamId> position_table_;
};

}  // namespace strake::models
