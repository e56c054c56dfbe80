#include "kernels/embedding.h"

#include <algorithm>

#include "kernels/cpu/body.h"

namespace strake::kernels {
namespace reference {

// x [batch, length, channels]; tokens [batch, length]; token_table [*, channels]; position_table [>= length, channels],
// or null.
template <typename T>
void embedding_forward(T* x, const std::int32_t* tokens, const T* token_table, const T* position_table,
                       std::int64_t batch, std::int64_t length, std::int64_t channels) {
  for (std::int64_t b = 0; b < batch; ++b) {
    for (std::int64_t t = 0; t < length; ++t) {
      const std::int64_t place = b * length + t;
      const T* const token_row = token_table + tokens[place] * channels;
      if (position_table == nullptr) {
        std::copy_n(token_row, channels, x + place * channels);
        continue;
      }
      const T* const position_row = position_table + t * channels;
      for (std::int64_t c = 0; c < channels; ++c) x[place * channels + c] = token_row[c] + position_row[c];
    }
  }
}

// dtoken_table [vocab, channels] (+)=, places in order.
template <typename T>
void embedding_backward_tokens(T* dtoken_table, const T* dx, const std::int32_t* tokens, std::int64_t places,
                               std::int64_t channels, std::int64_t vocab, bool accumulate) {
  if (!accumulate) std::fill_n(dtoken_table, vocab * channels, T(0));
  for (std::int64_t place = 0; place < places; ++place) {
    T* const row = dtoken_table + tokens[place] * channels;
    for (std::int64_t c = 0; c < channels; ++c) row[c] += dx[place * channels + c];
  }
}

// dposition_table [positions, channels] (+)=, batch in order; rows from `length` on have no part.
template <typename T>
void embedding_backward_positions(T* dposition_table, const T* dx, std::int64_t batch, std::int64_t length,
                                  std::int64_t channels, std::int64_t positions, bool accumulate) {
  if (!accumulate) std::fill_n(dposition_table, positions * channels, T(0));
  for (std::int64_t b = 0; b < batch; ++b) {
    const T* const dx_sequence = dx + b * length * channels;
    for (std::int64_t i = 0; i < length * channels; ++i) dposition_table[i] += dx_sequence[i];
  }
}

}  // namespace reference

// Bound by memory, and the plain loops over channels vectorise.
Body EmbeddingForward::on_cpu(CpuCode) const {
  return cpu::body(x.dtype(), [*this]<typename T>() {
    reference::embedding_forward(data<T>(x), data<std::int32_t>(tokens), data<T>(token_table),
                                 position_table.defined() ? data<T>(position_table) : nullptr, x.size(0), x.size(1),
                                 x.size(2));
  });
}

Body EmbeddingBackward::on_cpu(CpuCode) const {
  return cpu::body(dx.dtype(), [*this]<typename T>() {
    if (dtoken_table.defined()) {
      reference::embedding_backward_tokens(data<T>(dtoken_table), data<T>(dx), data<std::int32_t>(tokens),
                                           tokens.elems(), dx.size(2), dtoken_table.size(0),
                                           accumulate_token == Accumulate::kAdd);
    }
    if (!dposition_table.defined()) return;
    reference::embedding_backward_positions(data<T>(dposition_table), data<T>(dx), dx.size(0), dx.size(1), dx.size(2),
                                            dposition_table.size(0), accumulate_position == Accumulate::kAdd);
  });
}

}  // namespace strake::kernels
