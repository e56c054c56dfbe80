// Softmax cross-entropy over a vocabulary, loss and gradient in one pass over the logits, in place.
#pragma once

#include "kernels/arguments.h"

namespace strake::kernels {

// losses[n] = -log softmax(logits[n])[targets[n]] over the first `vocab` columns, in nats.
// logits become the gradient: (softmax - onehot) * gradient_scale, zero in the padding.
struct CrossEntropyForwardBackward {
  Tensor logits;       // [N, V_padded]
  Tensor losses;       // [N] (f32; f64 when logits are f64)
  Tensor targets;      // [N] i32, each in [0, vocab)
  std::int64_t vocab;  // at most V_padded
  double gradient_scale;

  Body on_cpu(CpuCode code) const;
  Body on_cuda(Device& device, Operation& operation) const;
};
void cross_entropy_forward_backward(Stream& stream, Label label, const CrossEntropyForwardBackward& arguments);

// Loss only; logits are left as they are.
struct CrossEntropyForward {
  Tensor losses, logits, targets;  // as above
  std::int64_t vocab;

  Body on_cpu(CpuCode code) const;
  Body on_cuda(Device& device, Operation& operation) const;
};
void cross_entropy_forward(Stream& stream, Label label, const CrossEntropyForward& arguments);

// total[0] = (accumulate ? total[0] : 0) + scale * sum of losses, added in a fixed order.
struct AccumulateLoss {
  Tensor total;   // [1], dtype of losses
  Tensor losses;  // [N]
  double scale;
  bool accumulate;

  Body on_cpu(CpuCode code) const;
  Body on_cuda(Device& device, Operation& operation) const;
};
void accumulate_loss(Stream& stream, Label label, const AccumulateLoss& arguments);

}  // namespace strake::kernels
