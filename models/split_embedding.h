// Whether the gradient of a tied token table is summed over ranks in two parts.
//
// Such a table gets gradient from two sides: from the head, first of all in backward, in every row; and from the
// embedding, last of all, in the rows of the step's tokens. Split, the head's part is reduced while backward computes,
// like that of a head of its own. At the end of backward only the token part is left: rows and their ids, which every
// rank gets from all others and adds to the reduced head's part. Not split, the whole table is reduced at the end.
//
// Threads: values, pure functions.
#pragma once

#include <cstdint>

#include "models/transformer_shape.h"
#include "runtime/base/dtype.h"

namespace strake::models {

enum class SplitEmbedding : bool { kNo = false, kYes = true };

// Of a step: what decides whether to split.
struct TableTraffic {
  int ranks = 1;
  std::int64_t tokens_per_step = 0;  // of all ranks
  DType row = DType::kF32;           // in which backward makes rows, and in which they travel
  DType wire = DType::kF32;          // in which gradients are summed
};

// Where the rows of all ranks are fewer bytes than the table: a rank then receives less at the end of backward than by
// a reduction, of the whole or into pieces. It does not ask how optimizer state is kept, so that bits do not depend on
// that. One rank has nothing to split, nor has a head of its own.
SplitEmbedding split_where_fewer_bytes(const TransformerShape& shape, const TableTraffic& traffic);

}  // namespace strake::models
