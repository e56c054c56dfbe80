// Readable reference of kernels/cross_entropy.h on plain arrays, for float and double.
#pragma once

#include <cstdint>

namespace strake::kernels::reference {

// logits [rows, columns], of which the first `vocab` columns count; losses [rows]; targets [rows].
template <typename T>
void cross_entropy_forward_backward(T* logits, T* losses, const std::int32_t* targets, std::int64_t rows,
                                    std::int64_t vocab, std::int64_t columns, T gradient_scale);

template <typename T>
void cross_entropy_forward(T* losses, const T* logits, const std::int32_t* targets, std::int64_t rows,
                           std::int64_t vocab, std::int64_t columns);

// total[0] = (accumulate ? total[0] : 0) + scale * sum of losses, summed in order in double.
template <typename T>
void accumulate_loss(T* total, const T* losses, std::int64_t rows, double scale, bool accumulate);

}  // namespace strake::kernels::reference
