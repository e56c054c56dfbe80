// Token plus position embedding, or of tokens alone (models that rotate instead).
#pragma once

#include "kernels/arguments.h"

namespace strake::kernels {

// x[b, t] = token_table[tokens[b, t]] + position_table[t].
struct EmbeddingForward {
  Tensor x;                    // [B, T, C]
  Tensor tokens;               // [B, T] i32, every id in [0, V) (checked when read from the file)
  Tensor token_table;          // [V, C]
  Tensor position_table = {};  // [T_max, C], T <= T_max; undefined: none

  Body on_cpu(CpuCode code) const;
  Body on_cuda(Device& device, Operation& operation) const;
};
void embedding_forward(Stream& stream, Label label, const EmbeddingForward& arguments);

// dtoken_table[id] (+)= sum of dx over the places where id stands, in order of place; dposition_table[t] (+)= sum
// over b. With kOverwrite rows without a token become zero. Deterministic.
// Either gradient has its own Accumulate: a tied token table already holds the head's part. Either may be undefined,
// and is not made then.
struct EmbeddingBackward {
  Tensor dtoken_table;  // [V, C]; undefined: none
  Accumulate accumulate_token;
  Tensor dposition_table;  // [T_max, C]; undefined: none
  Accumulate accumulate_position;
  Tensor dx;      // [B, T, C]
  Tensor tokens;  // [B, T] i32

  Body on_cpu(CpuCode code) const;
  Body on_cuda(Device& device, Operation& operation) const;
};
void embedding_backward(Stream& stream, Label label, const EmbeddingBackward& arguments);

}  // namespace strake::kernels
