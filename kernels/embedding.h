// Token plus position embedding.
#pragma once

#include "kernels/arguments.h"

namespace strake::kernels {

// x[b, t] = token_table[tokens[b, t]] + position_table[t].
// x [B, T, C]; tokens [B, T] i32, every id in [0, V) (checked when read from the file); token_table [V, C];
// position_table [T_max, C], T <= T_max.
void embedding_forward(Stream& stream, Label label, const Tensor& x, const Tensor& tokens, const Tensor& token_table,
                       const Tensor& position_table);

// dtoken_table[id] (+)= sum of dx over the places where id stands, in order of place; dposition_table[t] (+)= sum
// over b. With kOverwrite rows without a token become zero. Deterministic.
// Either gradient has its own Accumulate: a tied token table already holds the head's part.
void embedding_backward(Stream& stream, Label label, const Tensor& dtoken_table, Accumulate accumulate_token,
                        const Tensor& dposition_table, Accumulate accumulate_position, const Tensor& dx,
                        const Tensor& tokens);

}  // namespace strake::kernels
