// TransformerShape: what a decoder-only transformer is, as a value. A configuration, a checkpoint and the config.json
// of other programs are read into it, and blocks/ build a model from it. Its kinds are independent of each other: none
// is inferred from another. Threads: a value, pure functions. Errors: IncompatibleCheckpointError, where a description
// cannot be read.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/dtype.h"
#include "runtime/device/device.h"

namespace strake::models {

enum class Norm : std::uint8_t {
  kLayer,  // mean and variance, weight and bias
  kRms,    // root of the mean square, weight only
};
enum class Positions : std::uint8_t {
  kLearned,  // a table, added to the embedding
  kRotary,   // queries and keys are turned by their position
};
enum class Mlp : std::uint8_t {
  kGelu,    // down(gelu(up(x))), tanh form
  kSwiglu,  // down(silu(gate(x)) * up(x))
};
// Of the projections.
enum class Biases : std::uint8_t { kNone, kQkv, kAll };

// Llama 3's stretching of slow rotations to sequences longer than `original_sequence`.
struct RotaryScaling {
  double factor = 8;
  double low_frequency_factor = 1;
  double high_frequency_factor = 4;
  std::int64_t original_sequence = 8192;
  bool operator==(const RotaryScaling&) const = default;
};

struct TransformerShape {
  std::int64_t layers = 0;
  std::int64_t channels = 0;      // C, of the residual stream
  std::int64_t heads = 0;         // H, of queries
  std::int64_t kv_heads = 0;      // of keys and values; divides heads
  std::int64_t head_size = 0;     // D; heads * head_size need not be channels
  std::int64_t mlp_channels = 0;  // M, inside the MLP
  std::int64_t vocab = 0;         // ids are below this
  std::int64_t sequence = 0;      // T, also the number of learned positions
  Norm norm = Norm::kLayer;
  double norm_epsilon = 1e-5;
  Positions positions = Positions::kLearned;
  double rotary_base = 10000;  // theta
  std::optional<RotaryScaling> rotary_scaling = std::nullopt;
  Mlp mlp = Mlp::kGelu;
  Biases biases = Biases::kAll;
  bool tied_head = true;  // the token table is the head

  // Rows of the token table and of the head: the vocabulary rounded up to 128, so that matmul tiles are whole. Padding
  // rows take no part in the softmax and stay at their initial zero gradient.
  std::int64_t padded_vocab() const { return (vocab + 127) / 128 * 128; }
  std::int64_t query_channels() const { return heads * head_size; }
  std::int64_t kv_channels() const { return kv_heads * head_size; }
  // Of the packed projection: queries, keys and values.
  std::int64_t qkv_channels() const { return query_channels() + 2 * kv_channels(); }
  bool qkv_biases() const { return biases != Biases::kNone; }

  // FLOPs of forward and backward for one token: 6 per matmul weight (head counted once, embedding not) plus causal
  // attention 6 * T * heads * head_size * layers. The convention of MFU in this project.
  double model_flops_per_token() const;

  // Canonical JSON, stored in checkpoints and compared on load.
  std::string to_json() const;
  // Inverse; throws IncompatibleCheckpointError on anything else.
  static TransformerShape from_json(const std::string& text);
  bool operator==(const TransformerShape&) const = default;
};

// GPT-2 of that size (Radford et al. 2019).
TransformerShape gpt2_shape(std::int64_t layers, std::int64_t channels, std::int64_t heads, std::int64_t vocab,
                            std::int64_t sequence);

// Whether a model has this shape's kinds under that name in other programs: "gpt2", "llama", "qwen2"; empty: none has.
std::string_view family_of(const TransformerShape& shape);

// What of this model, `batch` sequences at once, the kernels of `device` cannot compute in `dtype`, naming keys and
// what they can: "GPUs take model.channels ..."; empty: nothing.
std::string unsupported(const TransformerShape& shape, DeviceKind device, DType dtype, std::int64_t batch = 1);

}  // namespace strake::models
