// Reference of kernels/embedding.h on plain arrays, for float and double; also what the CPU device runs:
// it is bound by memory, and the plain loops over channels vectorise.
#pragma once

#include <cstdint>

namespace strake::kernels::reference {

// x [batch, length, channels]; tokens [batch, length]; token_table [*, channels]; position_table [>= length, channels].
template <typename T>
void embedding_forward(T* x, const std::int32_t* tokens, const T* token_table, const T* position_table,
                       std::int64_t batch, std::int64_t length, std::int64_t channels);

// dtoken_table [vocab, channels] (+)=, places in order.
template <typename T>
void embedding_backward_tokens(T* dtoken_table, const T* dx, const std::int32_t* tokens, std::int64_t places,
                               std::int64_t channels, std::int64_t vocab, bool accumulate);

// dposition_table [positions, channels] (+)=, batch in order; rows from `length` on have no part.
template <typename T>
void embedding_backward_positions(T* dposition_table, const T* dx, std::int64_t batch, std::int64_t length,
                                  std::int64_t channels, std::int64_t positions, bool accumulate);

}  // namespace strake::kernels::reference
