// Rotary position embedding of queries and keys, in the half-split convention: at position t the pair (i, i + D/2) of
// every head turns by t * frequencies[i].
//
// It works inside the projection's buffer, or from one buffer into another, and can then lay the heads in another order
// on the way: attention reads heads as strided views, and heads by group have none where several queries share a key.
#pragma once

#include <optional>
#include <vector>

#include "kernels/arguments.h"
#include "kernels/qkv_layout.h"

namespace strake::kernels {

// How Llama 3 stretches positions beyond those of its first training: waves longer than original_positions /
// low_freq_factor turn `factor` times slower, those shorter than original_positions / high_freq_factor as before, those
// between by a part.
struct RotaryScaling {
  double factor, low_freq_factor, high_freq_factor;
  std::int64_t original_positions;
};

// head_size / 2 angular frequencies per position: theta^(-2i / head_size), scaled. REQUIRES: an even head size.
std::vector<double> rotary_frequencies(std::int64_t head_size, double theta,
                                       const std::optional<RotaryScaling>& scaling = std::nullopt);

// y = x with query and key heads turned; values as they are.
struct RotaryForward {
  Tensor y, x;                      // [B, T, row]; y may be x, where the layouts are the same
  QkvLayout y_layout, x_layout;     // of one set of heads
  std::vector<double> frequencies;  // D / 2, or none: then heads only move

  Body on_cpu(CpuCode code) const;
  Body on_cuda(Device& device, Operation& operation) const;
};
void rotary_forward(Stream& stream, Label label, const RotaryForward& arguments);

// dx = dy with query and key heads turned back.
struct RotaryBackward {
  Tensor dx, dy;                 // [B, T, row]; dx may be dy, where the layouts are the same
  QkvLayout x_layout, y_layout;  // as in forward
  std::vector<double> frequencies;

  Body on_cpu(CpuCode code) const;
  Body on_cuda(Device& device, Operation& operation) const;
};
void rotary_backward(Stream& stream, Label label, const RotaryBackward& arguments);

}  // namespace strake::kernels
