#include "kernels/cpu/embedding.h"

#include <algorithm>

namespace strake::kernels::reference {

template <typename T>
void embedding_forward(T* x, const std::int32_t* tokens, const T* token_table, const T* position_table,
                       std::int64_t batch, std::int64_t length, std::int64_t channels) {
  for (std::int64_t b = 0; b < batch; ++b) {
    for (std::int64_t t = 0; t < length; ++t) {
      const std::int64_t place = b * length + t;
      const T* const token_row = token_table + tokens[place] * channels;
      const T* const position_row = position_table + t * channels;
      for (std::int64_t c = 0; c < channels; ++c) x[place * channels + c] = token_row[c] + position_row[c];
    }
  }
}

template <typename T>
void embedding_backward_tokens(T* dtoken_table, const T* dx, const std::int32_t* tokens, std::int64_t places,
                               std::int64_t channels, std::int64_t vocab, bool accumulate) {
  if (!accumulate) std::fill_n(dtoken_table, vocab * channels, T(0));
  for (std::int64_t place = 0; place < places; ++place) {
    T* const row = dtoken_table + tokens[place] * channels;
    for (std::int64_t c = 0; c < channels; ++c) row[c] += dx[place * channels + c];
  }
}

template <typename T>
void embedding_backward_positions(T* dposition_table, const T* dx, std::int64_t batch, std::int64_t length,
                                  std::int64_t channels, std::int64_t positions, bool accumulate) {
  if (!accumulate) std::fill_n(dposition_table, positions * channels, T(0));
  for (std::int64_t b = 0; b < batch; ++b) {
    const T* const dx_sequence = dx + b * length * channels;
    for (std::int64_t i = 0; i < length * channels; ++i) dposition_table[i] += dx_sequence[i];
  }
}

#define STRAKE_INSTANTIATE(T)                                                                                          \
  template void embedding_forward(T*, const std::int32_t*, const T*, const T*, std::int64_t, std::int64_t,             \
                                  std::int64_t);                                                                       \
  template void embedding_backward_tokens(T*, const T*, const std::int32_t*, std::int64_t, std::int64_t, std::int64_t, \
                                          bool);                                                                       \
  template void embedding_backward_positions(T*, const T*, std::int64_t, std::int64_t, std::int64_t, std::int64_t,     \
                                             bool);
STRAKE_INSTANTIATE(float)
STRAKE_INSTANTIATE(double)
#undef STRAKE_INSTANTIATE

}  // namespace strake::kernels::reference
