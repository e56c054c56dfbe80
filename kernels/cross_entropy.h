// Softmax cross-entropy over a vocabulary, loss and gradient in one pass over the logits, in place.
#pragma once

#include "runtime/device/device.h"

namespace strake::kernels {

// losses[n] = -log softmax(logits[n])[targets[n]] over the first `vocab` columns, in nats.
// logits [N, V_padded] becomes the gradient: (softmax - onehot) * gradient_scale, zero in the padding.
// targets [N] i32, each in [0, vocab). losses [N] (f32; f64 when logits are f64).
void cross_entropy_forward_backward(Stream& stream, Label label, const Tensor& logits, const Tensor& losses,
                                    const Tensor& targets, std::int64_t vocab, double gradient_scale);

// Loss only; logits are left as they are.
void cross_entropy_forward(Stream& stream, Label label, const Tensor& losses, const Tensor& logits,
                           const Tensor& targets, std::int64_t vocab);

// total[0] = (accumulate ? total[0] : 0) + scale * sum of losses, added in a fixed order. total [1], dtype of losses.
void accumulate_loss(Stream& stream, Label label, const Tensor& total, const Tensor& losses, double scale,
                     bool accumulate);

}  // namespace strake::kernels
