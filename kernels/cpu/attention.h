// Readable reference of kernels/attention.h on plain arrays, for float and double.
#pragma once

#include <cstdint>

namespace strake::kernels::reference {

struct AttentionShape {
  std::int64_t batch;
  std::int64_t length;
  std::int64_t heads;
  std::int64_t head_size;

  std::int64_t channels() const { return heads * head_size; }
};

// out [batch, length, channels]; stats [batch, heads, length]; qkv [batch, length, 3 * channels].
template <typename T>
void attention_forward(T* out, T* stats, const T* qkv, const AttentionShape& shape);

// scratch: not used here; the vector version needs attention_backward_scratch_elems.
template <typename T>
void attention_backward(T* dqkv, const T* dout, const T* qkv, const T* out, const T* stats, T* scratch,
                        const AttentionShape& shape);

}  // namespace strake::kernels::reference
