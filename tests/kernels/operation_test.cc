// The operations as models call them: what they declare, what they refuse, and results that are exact by definition.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>

#include "kernels/attention.h"
#include "kernels/cpu/code.h"
#include "kernels/cross_entropy.h"
#include "kernels/elementwise.h"
#include "kernels/embedding.h"
#include "kernels/fingerprint.h"
#include "kernels/layer_norm.h"
#include "kernels/matmul.h"
#include "kernels/optimizer.h"
#include "kernels/qkv_layout.h"
#include "kernels/rms_norm.h"
#include "kernels/rotary.h"
#include "kernels/swiglu.h"
#include "runtime/device/cpu/cpu_device.h"
#include "runtime/device/cpu/cpu_memory.h"
#include "runtime/device/recording.h"
#include "tests/kernels/arrays.h"
#include "tests/kernels/inline_stream.h"

namespace strake::kernels {
namespace {

using namespace strake::kernels::testing;
using strake::cpu::data;

constexpr Label kLabel = {"test", Phase::kOther};

// Tensors of one test; filled in before the arena exists, as models do.
class OperationTest : public ::testing::Test {
 protected:
  Tensor tensor(std::initializer_list<std::int64_t> shape, DType dtype = DType::kF32) {
    return Tensor::reserve(arena_, dtype, shape);
  }
  void allocate() { arena_.allocate(*device_); }
  template <typename T>
  void fill(const Tensor& tensor, const std::vector<T>& values) {
    ASSERT_EQ(values.size(), static_cast<std::size_t>(tensor.elems()));
    std::copy(values.begin(), values.end(), data<T>(tensor));
  }
  template <typename T>
  void fill(const Tensor& tensor, T value) {
    std::fill_n(data<T>(tensor), tensor.elems(), value);
  }
  void fill_scalars(const Tensor& tensor, const AdamWScalars& scalars) {
    fill(tensor, std::vector<double>(scalars.begin(), scalars.end()));
  }
  template <typename T = float>
  std::vector<T> values(const Tensor& tensor) {
    return {data<T>(tensor), data<T>(tensor) + tensor.elems()};
  }

  // The last operation declares exactly these tensors (by address), in any order.
  void expect_declared(std::vector<Tensor> reads, std::vector<Tensor> writes) {
    const auto places = [](const std::vector<Tensor>& tensors) {
      std::vector<std::pair<std::size_t, std::size_t>> out;
      for (const Tensor& t : tensors) out.emplace_back(t.offset_bytes(), t.extent_bytes());
      std::sort(out.begin(), out.end());
      return out;
    };
    ASSERT_FALSE(stream_.launched.empty());
    const LaunchedOperation& last = stream_.launched.back();
    EXPECT_EQ(places(last.reads), places(reads)) << last.kind;
    EXPECT_EQ(places(last.writes), places(writes)) << last.kind;
  }

  std::unique_ptr<Device> device_ = make_cpu_device();
  InlineStream stream_{*device_};
  Arena arena_{"test", MemoryKind::kDevice};
};

TEST_F(OperationTest, EveryAccessIsDeclared) {
  const std::int64_t batch = 2, length = 5, channels = 6, rows = batch * length, vocab = 7;
  const Tensor x = tensor({rows, channels}), y = tensor({rows, channels}), dx = tensor({rows, channels});
  const Tensor x3 = x.reshape({batch, length, channels});
  const Tensor weight = tensor({channels, channels}), dweight = tensor({channels, channels});
  const Tensor in_out = tensor({channels, 2 * channels}), wide = tensor({rows, 2 * channels});
  const Tensor gain = tensor({channels}), bias = tensor({channels}), dgain = tensor({channels}),
               dbias = tensor({channels});
  const Tensor mean = tensor({rows}), rstd = tensor({rows});
  const Tensor qkv = tensor({batch, length, 3 * channels}), dqkv = tensor({batch, length, 3 * channels});
  const Tensor elsewhere = tensor({batch, length, 2, 3});
  const Tensor out = tensor({batch, length, channels}), dout = tensor({batch, length, channels});
  const Tensor stats = tensor({batch, 2, length});
  const Tensor scratch = tensor({attention_backward_scratch_elems(DeviceKind::kCpu, length, channels / 2)});
  const Tensor tokens = tensor({batch, length}, DType::kI32), targets = tensor({rows}, DType::kI32);
  const Tensor tokens_table = tensor({vocab, channels}), positions = tensor({8, channels});
  const Tensor logits = tensor({rows, vocab}), losses = tensor({rows}), total = tensor({1});
  const Tensor w = tensor({100}), m = tensor({100}), v = tensor({100}), g = tensor({100});
  const Tensor norm = tensor({1}), clip = tensor({1}), block_sums = tensor({2}, DType::kF64);
  const Tensor scalars = tensor({3}, DType::kF64);
  allocate();
  using enum Accumulate;

  linear_forward(stream_, kLabel, {y, x, weight, bias});
  expect_declared({x, weight, bias}, {y});
  EXPECT_EQ(stream_.launched.back().flops, 2.0 * rows * channels * channels);
  linear_forward(stream_, kLabel, {y, x, weight});
  expect_declared({x, weight}, {y});
  linear_forward(stream_, kLabel, {y, x, weight, bias, WeightLayout::kOutIn, dx});
  expect_declared({x, weight, bias}, {y, dx});
  EXPECT_EQ(stream_.launched.back().flops, 2.0 * rows * channels * channels);
  linear_backward_weight(stream_, kLabel, {dweight, dbias, y, x, kOverwrite});
  expect_declared({y, x}, {dweight, dbias});
  linear_backward_weight(stream_, kLabel, {dweight, dbias, y, x, kAdd});
  expect_declared({y, x, dweight, dbias}, {dweight, dbias});
  linear_backward_weight(stream_, kLabel, {dweight, {}, y, x, kAdd});
  expect_declared({y, x, dweight}, {dweight});
  linear_backward_input(stream_, kLabel, {dx, y, weight});
  expect_declared({y, weight}, {dx});
  linear_backward_input(stream_, kLabel, {dx, y, weight, WeightLayout::kOutIn, x});
  expect_declared({y, weight, x}, {dx});
  linear_backward_input(stream_, kLabel, {dx, y, weight, WeightLayout::kOutIn, x, dbias});
  expect_declared({y, weight, x}, {dx, dbias});
  linear_backward_input(stream_, kLabel, {dx, y, weight, WeightLayout::kOutIn, x, dbias, kAdd});
  expect_declared({y, weight, x, dbias}, {dx, dbias});
  EXPECT_EQ(stream_.launched.back().flops, 2.0 * rows * channels * channels);
  linear_forward(stream_, kLabel, {wide, x, in_out, {}, WeightLayout::kInOut});
  expect_declared({x, in_out}, {wide});
  EXPECT_EQ(stream_.launched.back().flops, 2.0 * rows * channels * 2 * channels);
  linear_backward_weight(stream_, kLabel, {in_out, {}, wide, x, kAdd, WeightLayout::kInOut});
  expect_declared({wide, x, in_out}, {in_out});
  EXPECT_EQ(stream_.launched.back().flops, 2.0 * rows * channels * 2 * channels);
  linear_backward_input(stream_, kLabel, {dx, wide, in_out, WeightLayout::kInOut});
  expect_declared({wide, in_out}, {dx});
  EXPECT_EQ(stream_.launched.back().flops, 2.0 * rows * channels * 2 * channels);

  const QkvLayout::Views of = QkvLayout{2, 2, 3}.views(qkv), d_of = QkvLayout{2, 2, 3}.views(dqkv);
  attention_forward(stream_, kLabel, {out, stats, of.q, of.k, of.v});
  expect_declared({of.q, of.k, of.v}, {out, stats});
  EXPECT_EQ(stream_.launched.back().flops, 2 * 2.0 * batch * 2 * (length * (length + 1) / 2) * 3);
  attention_backward(stream_, kLabel, {d_of.q, d_of.k, d_of.v, dout, of.q, of.k, of.v, out, stats, scratch});
  // Heads that fill a buffer together overwrite it, whole.
  expect_declared({dout, of.q, of.k, of.v, out, stats}, {dqkv, scratch});
  attention_backward(stream_, kLabel, {d_of.q, d_of.k, elsewhere, dout, of.q, of.k, of.v, out, stats, scratch});
  expect_declared({dout, of.q, of.k, of.v, out, stats}, {d_of.q, d_of.k, elsewhere, scratch});

  layer_norm_forward(stream_, kLabel, {y, mean, rstd, x, gain, bias});
  expect_declared({x, gain, bias}, {y, mean, rstd});
  residual_layer_norm_forward(stream_, kLabel, {dx, y, mean, rstd, x, y, gain, bias});
  expect_declared({x, y, gain, bias}, {dx, y, mean, rstd});
  layer_norm_backward(stream_, kLabel, {dx, dgain, dbias, y, x, mean, rstd, gain, kOverwrite});
  expect_declared({y, x, mean, rstd, gain, dx}, {dx, dgain, dbias});
  layer_norm_backward(stream_, kLabel, {dx, dgain, dbias, y, x, mean, rstd, gain, kAdd});
  expect_declared({y, x, mean, rstd, gain, dx, dgain, dbias}, {dx, dgain, dbias});
  layer_norm_backward(stream_, kLabel, {dx, dgain, dbias, y, x, mean, rstd, gain, kOverwrite, kOverwrite, bias});
  expect_declared({y, x, mean, rstd, gain}, {dx, dgain, dbias, bias});
  layer_norm_backward(stream_, kLabel, {dx, dgain, dbias, y, x, mean, rstd, gain, kAdd, kAdd, bias});
  expect_declared({y, x, mean, rstd, gain, dx, dgain, dbias, bias}, {dx, dgain, dbias, bias});

  gelu_forward(stream_, kLabel, {y, x});
  expect_declared({x}, {y});
  gelu_backward(stream_, kLabel, {dx, y, x});
  expect_declared({y, x}, {dx});
  gelu_backward(stream_, kLabel, {dx, y, x, dbias, kOverwrite});
  expect_declared({y, x}, {dx, dbias});
  gelu_backward(stream_, kLabel, {dx, y, x, dbias, kAdd});
  expect_declared({y, x, dbias}, {dx, dbias});
  add(stream_, kLabel, {y, x, dx});
  expect_declared({x, dx}, {y});
  cast(stream_, kLabel, {y, x});
  expect_declared({x}, {y});

  embedding_forward(stream_, kLabel, {x3, tokens, tokens_table, positions});
  expect_declared({tokens, tokens_table, positions}, {x3});
  embedding_backward(stream_, kLabel, {tokens_table, kOverwrite, positions, kOverwrite, x3, tokens});
  expect_declared({x3, tokens}, {tokens_table, positions});
  embedding_backward(stream_, kLabel, {tokens_table, kAdd, positions, kOverwrite, x3, tokens});
  expect_declared({x3, tokens, tokens_table}, {tokens_table, positions});
  embedding_backward(stream_, kLabel, {tokens_table, kOverwrite, positions, kAdd, x3, tokens});
  expect_declared({x3, tokens, positions}, {tokens_table, positions});

  embedding_forward(stream_, kLabel, {x3, tokens, tokens_table});
  expect_declared({tokens, tokens_table}, {x3});
  embedding_backward(stream_, kLabel, {tokens_table, kAdd, {}, kAdd, x3, tokens});
  expect_declared({x3, tokens, tokens_table}, {tokens_table});
  embedding_backward(stream_, kLabel, {{}, kAdd, positions, kAdd, x3, tokens});
  expect_declared({x3, positions}, {positions});

  cross_entropy_forward(stream_, kLabel, {losses, logits, targets, vocab});
  expect_declared({logits, targets}, {losses});
  cross_entropy_forward_backward(stream_, kLabel, {logits, losses, targets, vocab, 1});
  expect_declared({logits, targets}, {logits, losses});
  accumulate_loss(stream_, kLabel, {total, losses, 1, false});
  expect_declared({losses}, {total});
  accumulate_loss(stream_, kLabel, {total, losses, 1, true});
  expect_declared({losses, total}, {total});

  const FlatSegment segments[] = {{0, 60, true}, {64, 36, false}};
  square_sums(stream_, kLabel, {block_sums, g, segments});
  expect_declared({g}, {block_sums});
  gradient_norm(stream_, kLabel, {norm, clip, block_sums, 1});
  expect_declared({block_sums}, {norm, clip});
  adamw(stream_, kLabel, {w, m, v, g, clip, scalars, segments, {0.9, 0.95, 1e-8, 0.1}});
  expect_declared({g, clip, scalars, w, m, v}, {w, m, v});
}

TEST_F(OperationTest, EveryAccessInALlamaBlockIsDeclared) {
  const std::int64_t batch = 2, length = 5, channels = 8, rows = batch * length;
  const QkvLayout by_group{4, 2, 2, QkvLayout::Order::kByGroup}, by_kind{4, 2, 2};
  const std::int64_t row = by_kind.row_elems();
  const Tensor x = tensor({rows, channels}), y = tensor({rows, channels}), delta = tensor({rows, channels});
  const Tensor weight = tensor({channels}), dweight = tensor({channels}), rstd = tensor({rows});
  const Tensor sums = tensor({channels});
  const Tensor gate_up = tensor({rows, 2 * channels}), d_gate_up = tensor({rows, 2 * channels});
  const Tensor qkv = tensor({batch, length, row}), turned = tensor({batch, length, row});
  const Tensor out = tensor({batch, length, channels}), stats = tensor({batch, 4, length});
  const Tensor scratch = tensor({attention_backward_scratch_elems(DeviceKind::kCpu, length, 2)});
  allocate();
  using enum Accumulate;

  rms_norm_forward(stream_, kLabel, {y, rstd, x, weight, 1e-5});
  expect_declared({x, weight}, {y, rstd});
  residual_rms_norm_forward(stream_, kLabel, {x, y, rstd, x, delta, weight, 1e-5});
  expect_declared({x, delta, weight}, {x, y, rstd});
  rms_norm_backward(stream_, kLabel, {delta, dweight, y, x, rstd, weight, kOverwrite});
  expect_declared({y, x, rstd, weight, delta}, {delta, dweight});
  rms_norm_backward(stream_, kLabel, {delta, dweight, y, x, rstd, weight, kAdd});
  expect_declared({y, x, rstd, weight, delta, dweight}, {delta, dweight});
  rms_norm_backward(stream_, kLabel, {delta, dweight, y, x, rstd, weight, kOverwrite, kOverwrite, sums});
  expect_declared({y, x, rstd, weight}, {delta, dweight, sums});
  rms_norm_backward(stream_, kLabel, {delta, dweight, y, x, rstd, weight, kAdd, kAdd, sums});
  expect_declared({y, x, rstd, weight, delta, dweight, sums}, {delta, dweight, sums});

  swiglu_forward(stream_, kLabel, {y, gate_up});
  expect_declared({gate_up}, {y});
  swiglu_backward(stream_, kLabel, {d_gate_up, y, gate_up});
  expect_declared({y, gate_up}, {d_gate_up});

  const std::vector<double> frequencies = rotary_frequencies(2, 10000);
  rotary_forward(stream_, kLabel, {turned, qkv, by_kind, by_group, frequencies});
  expect_declared({qkv}, {turned});
  rotary_backward(stream_, kLabel, {qkv, turned, by_group, by_kind, frequencies});
  expect_declared({turned}, {qkv});
  rotary_forward(stream_, kLabel, {qkv, qkv, by_group, by_group, frequencies});
  expect_declared({qkv}, {qkv});

  const auto [q, k, v] = by_kind.views(turned);
  const auto [dq, dk, dv] = by_kind.views(qkv);
  attention_forward(stream_, kLabel, {out, stats, q, k, v});
  expect_declared({q, k, v}, {out, stats});
  // Shared key heads are fewer bytes, not fewer products.
  EXPECT_EQ(stream_.launched.back().flops, 2 * 2.0 * batch * 4 * (length * (length + 1) / 2) * 2);
  attention_backward(stream_, kLabel, {dq, dk, dv, out, q, k, v, out, stats, scratch});
  expect_declared({out, q, k, v, out, stats}, {qkv, scratch});
  EXPECT_EQ(stream_.launched.back().flops, 4 * 2.0 * batch * 4 * (length * (length + 1) / 2) * 2);
}

// A dry run needs no memory: the plan device takes the same calls.
TEST_F(OperationTest, AreRecordedWithoutMemory) {
  PlanDevice plan;
  const auto stream = plan.make_stream("compute", StreamPriority::kNormal);
  const Tensor x = tensor({4, 8}), y = tensor({4, 8}), weight = tensor({8, 8});
  linear_forward(*stream, kLabel, {y, x, weight});
  gelu_forward(*stream, kLabel, {y, y});
  ASSERT_EQ(plan.recording().entries.size(), 2u);
  EXPECT_EQ(plan.recording().entries[0].kernel, "linear_forward");
  EXPECT_EQ(plan.recording().entries[0].reads.size(), 2u);
  EXPECT_EQ(plan.recording().flops(), 2.0 * 4 * 8 * 8);
}

TEST_F(OperationTest, WrongOperandsAreNamed) {
  const Tensor x = tensor({4, 8}), y = tensor({4, 6}), weight = tensor({6, 8}), bad_bias = tensor({5});
  const Tensor qkv = tensor({1, 4, 10}), out = tensor({1, 4, 6}), stats = tensor({1, 3, 4});
  const Tensor heads = tensor({1, 4, 3, 2}), key_heads = tensor({1, 4, 2, 2});
  const Tensor bytes = tensor({4, 8}, DType::kU8);
  const FlatSegment outside[] = {{0, 40, true}};
  const Tensor flat = tensor({32}), norm = tensor({1}), clip = tensor({1}), sums = tensor({1}, DType::kF64);
  allocate();
  EXPECT_DEATH(linear_forward(stream_, kLabel, {y, x, weight, bad_bias}),
               "linear_forward: bias is f32\\[5\\], must be f32\\[6\\]");
  EXPECT_DEATH(linear_forward(stream_, kLabel, {y, x, weight, {}, WeightLayout::kInOut}),
               "linear_forward: x is f32\\[4, 8\\], must be f32\\[4, 6\\]");
  EXPECT_DEATH(linear_backward_weight(stream_, kLabel, {weight, {}, y, x, Accumulate::kAdd, WeightLayout::kInOut}),
               "dweight is f32\\[6, 8\\], must be f32\\[8, 6\\]");
  EXPECT_DEATH(linear_forward(stream_, kLabel, {x, x, weight}), "linear_forward: y is f32\\[4, 8\\]");
  EXPECT_DEATH(linear_forward(stream_, kLabel, {{}, x, weight}), "linear_forward: y is undefined");
  EXPECT_DEATH(gelu_forward(stream_, kLabel, {y, x}), "gelu_forward: y is f32\\[4, 6\\], must be f32\\[4, 8\\]");
  EXPECT_DEATH(gelu_forward(stream_, kLabel, {bytes, bytes}), "x is u8\\[4, 8\\], must be f32, f64 or bf16");
  EXPECT_DEATH(gelu_forward(stream_, kLabel, {x.slice(1, 0, 4), x.slice(1, 4, 4)}), "must be contiguous");
  EXPECT_DEATH(attention_forward(stream_, kLabel, {out, stats, heads, key_heads, key_heads}),
               "attention_forward: 3 query heads do not divide among 2 key heads");
  EXPECT_DEATH(attention_forward(stream_, kLabel, {out, stats, heads, heads, key_heads}),
               "attention_forward: v is f32\\[1, 4, 2, 2\\], must be f32\\[1, 4, 3, 2\\]");
  EXPECT_DEATH(
      attention_forward(stream_, kLabel, {out, stats, heads, heads.with_strides({1, 4, 3, 2}, {24, 1, 8, 4}), heads}),
      "the channels of a head of k must lie beside each other");
  EXPECT_DEATH((QkvLayout{3, 1, 2}.views(heads)), "no views of f32\\[1, 4, 3, 2\\]");
  EXPECT_DEATH((QkvLayout{3, 1, 2, QkvLayout::Order::kByGroup}.views(qkv)), "no views of f32\\[1, 4, 10\\]");
  const QkvLayout by_kind{3, 1, 2}, by_group{3, 1, 2, QkvLayout::Order::kByGroup};
  EXPECT_DEATH(rotary_forward(stream_, kLabel, {qkv, qkv, by_kind, by_group, {1}}),
               "rotary_forward: heads cannot change places in place");
  EXPECT_DEATH(rotary_forward(stream_, kLabel, {qkv, qkv, by_kind, by_kind, {1, 2}}),
               "rotary_forward: a frequency for every pair of a head, or none");
  EXPECT_DEATH(rotary_backward(stream_, kLabel, {x, qkv, by_kind, by_kind, {1}}),
               "rotary_backward: dx is f32\\[4, 8\\]");
  EXPECT_DEATH(swiglu_forward(stream_, kLabel, {y, x}), "swiglu_forward: y is f32\\[4, 6\\], must be f32\\[4, 4\\]");
  EXPECT_DEATH(rms_norm_forward(stream_, kLabel, {x, clip, x, norm, 1e-5}), "rms_norm_forward: rstd is f32\\[1\\]");
  EXPECT_DEATH(cast(stream_, kLabel, {bytes, x}), "no cast from f32 to u8");
  EXPECT_DEATH(square_sums(stream_, kLabel, {sums, flat, outside}), "segment \\[0, 40\\) lies outside");
}

TEST_F(OperationTest, DoubleRunsTheReference) {
  Random random(301);
  const Tensor x = tensor({3, 5}, DType::kF64), weight = tensor({4, 5}, DType::kF64), y = tensor({3, 4}, DType::kF64);
  allocate();
  fill(x, random.normal<double>(15));
  fill(weight, random.normal<double>(20));
  linear_forward(stream_, kLabel, {y, x, weight});
  for (std::int64_t row = 0; row < 3; ++row) {
    for (std::int64_t column = 0; column < 4; ++column) {
      double sum = 0;
      for (std::int64_t k = 0; k < 5; ++k) sum += data<double>(x)[row * 5 + k] * data<double>(weight)[column * 5 + k];
      EXPECT_EQ(data<double>(y)[row * 4 + column], sum);
    }
  }
}

TEST_F(OperationTest, EmbeddingBackwardZeroesRowsWithoutTokenAndAddsToTheOthers) {
  Random random(302);
  const std::int64_t batch = 3, length = 4, channels = 5, vocab = 6, positions = 7;
  const Tensor dx = tensor({batch, length, channels}), tokens = tensor({batch, length}, DType::kI32);
  const Tensor dtoken = tensor({vocab, channels}), dposition = tensor({positions, channels});
  const Tensor dtoken_added = tensor({vocab, channels}), dposition_added = tensor({positions, channels});
  allocate();
  const auto gradient = random.small_integers(batch * length * channels);
  const auto ids = random.tokens(batch * length, vocab - 1);  // the last row has no token
  const auto old_token = random.small_integers(vocab * channels);
  const auto old_position = random.small_integers(positions * channels);
  fill(dx, gradient);
  fill(tokens, ids);
  fill(dtoken, std::nanf(""));
  fill(dposition, std::nanf(""));
  fill(dtoken_added, old_token);
  fill(dposition_added, old_position);
  embedding_backward(stream_, kLabel, {dtoken, Accumulate::kOverwrite, dposition, Accumulate::kOverwrite, dx, tokens});
  embedding_backward(stream_, kLabel, {dtoken_added, Accumulate::kAdd, dposition_added, Accumulate::kAdd, dx, tokens});

  std::vector<float> token_sums(static_cast<std::size_t>(vocab * channels));
  std::vector<float> position_sums(static_cast<std::size_t>(positions * channels));
  for (std::int64_t place = 0; place < batch * length; ++place) {
    for (std::int64_t c = 0; c < channels; ++c) {
      const float value = gradient[static_cast<std::size_t>(place * channels + c)];
      token_sums[static_cast<std::size_t>(ids[static_cast<std::size_t>(place)] * channels + c)] += value;
      position_sums[static_cast<std::size_t>(place % length * channels + c)] += value;
    }
  }
  EXPECT_EQ(values(dtoken), token_sums);
  EXPECT_EQ(values(dposition), position_sums);
  for (std::size_t i = 0; i < token_sums.size(); ++i) token_sums[i] += old_token[i];
  for (std::size_t i = 0; i < position_sums.size(); ++i) position_sums[i] += old_position[i];
  EXPECT_EQ(values(dtoken_added), token_sums);
  EXPECT_EQ(values(dposition_added), position_sums);
}

TEST_F(OperationTest, EmbeddingForwardAddsTheTwoRows) {
  Random random(303);
  const Tensor x = tensor({2, 3, 4}), tokens = tensor({2, 3}, DType::kI32);
  const Tensor token_table = tensor({5, 4}), position_table = tensor({9, 4});
  allocate();
  const auto token_rows = random.small_integers(20), position_rows = random.small_integers(36);
  const auto ids = random.tokens(6, 5);
  fill(token_table, token_rows);
  fill(position_table, position_rows);
  fill(tokens, ids);
  fill(x, std::nanf(""));
  embedding_forward(stream_, kLabel, {x, tokens, token_table, position_table});
  for (std::size_t place = 0; place < 6; ++place) {
    for (std::size_t c = 0; c < 4; ++c) {
      EXPECT_EQ(values(x)[place * 4 + c],
                token_rows[static_cast<std::size_t>(ids[place]) * 4 + c] + position_rows[place % 3 * 4 + c]);
    }
  }
}

TEST_F(OperationTest, EmbeddingWithoutPositionsIsTheTokensRow) {
  Random random(308);
  const Tensor x = tensor({2, 3, 4}), tokens = tensor({2, 3}, DType::kI32), token_table = tensor({5, 4});
  const Tensor dtoken = tensor({5, 4}), dtoken_alone = tensor({5, 4}), dposition = tensor({3, 4});
  const Tensor dposition_alone = tensor({3, 4});
  allocate();
  const auto rows = random.normal(20);
  const auto ids = random.tokens(6, 5);
  fill(token_table, rows);
  fill(tokens, ids);
  fill(x, std::nanf(""));
  embedding_forward(stream_, kLabel, {x, tokens, token_table});
  for (std::size_t i = 0; i < 24; ++i) {
    EXPECT_EQ(values(x)[i], rows[static_cast<std::size_t>(ids[i / 4]) * 4 + i % 4]);
  }
  using enum Accumulate;
  embedding_backward(stream_, kLabel, {dtoken, kOverwrite, dposition, kOverwrite, x, tokens});
  embedding_backward(stream_, kLabel, {dtoken_alone, kOverwrite, {}, kOverwrite, x, tokens});
  EXPECT_EQ(values(dtoken_alone), values(dtoken));
  embedding_backward(stream_, kLabel, {{}, kOverwrite, dposition_alone, kOverwrite, x, tokens});
  EXPECT_EQ(values(dposition_alone), values(dposition));
}

TEST_F(OperationTest, AccumulatedLossIsScaledAndAdded) {
  const Tensor losses = tensor({4}), total = tensor({1});
  allocate();
  fill(losses, std::vector<float>{1, 2, 3, 4});
  fill(total, std::nanf(""));
  accumulate_loss(stream_, kLabel, {total, losses, 0.5, false});
  EXPECT_EQ(values(total)[0], 5.0f);
  accumulate_loss(stream_, kLabel, {total, losses, 0.25, true});
  EXPECT_EQ(values(total)[0], 7.5f);
}

TEST_F(OperationTest, CastsRoundToNearestEven) {
  const Tensor wide = tensor({6}), narrow = tensor({6}, DType::kBF16), back = tensor({6});
  const Tensor in_double = tensor({6}, DType::kF64);
  allocate();
  // A bf16 has 8 significant bits: 257 and 259 lie between two neighbours, and go to the even one.
  fill(wide, std::vector<float>{1, 257, 259, -3.0e38f, std::nanf(""), std::numeric_limits<float>::infinity()});
  cast(stream_, kLabel, {narrow, wide});
  cast(stream_, kLabel, {back, narrow});
  const auto rounded = values(back);
  EXPECT_EQ(rounded[0], 1.0f);
  EXPECT_EQ(rounded[1], 256.0f);
  EXPECT_EQ(rounded[2], 260.0f);
  EXPECT_NEAR(rounded[3], -3.0e38f, 1e36f);
  EXPECT_TRUE(std::isnan(rounded[4]));
  EXPECT_EQ(rounded[5], std::numeric_limits<float>::infinity());
  cast(stream_, kLabel, {in_double, wide});
  EXPECT_EQ(values<double>(in_double)[2], 259.0);
  fill(in_double, 1.0 + 1e-9);
  cast(stream_, kLabel, {wide, in_double});
  EXPECT_EQ(values(wide)[0], 1.0f);
}

TEST_F(OperationTest, GradientNormDependsOnSegmentsAndNotOnWhereTheyLie) {
  Random random(304);
  // Three segments of one, two and three blocks, the last ones partly filled.
  const std::int64_t sizes[] = {100, kNormBlockElems + 7, 2 * kNormBlockElems + 1};
  const std::int64_t room = 4 * kNormBlockElems + 256;
  const Tensor packed = tensor({room}), spread = tensor({room});
  const Tensor norm = tensor({1}), clip = tensor({1}), sums = tensor({6}, DType::kF64);
  const Tensor norm_spread = tensor({1}), clip_spread = tensor({1}), sums_spread = tensor({6}, DType::kF64);
  allocate();
  std::vector<FlatSegment> in_packed, in_spread;
  fill(packed, std::nanf(""));  // the gaps count for nothing
  fill(spread, std::nanf(""));
  std::int64_t begin = 0, end = room;
  double exact = 0;
  for (const std::int64_t size : sizes) {
    const auto gradients = random.normal(size, 0.1);
    for (const float value : gradients) exact += static_cast<double>(value) * value;
    end -= size + 3;  // the other way round in memory, and not aligned
    std::copy(gradients.begin(), gradients.end(), data<float>(packed) + begin);
    std::copy(gradients.begin(), gradients.end(), data<float>(spread) + end);
    in_packed.push_back({begin, size, true});
    in_spread.push_back({end, size, false});
    begin += (size + 127) / 128 * 128;
  }
  ASSERT_EQ(norm_blocks(in_packed), 6);
  square_sums(stream_, kLabel, {sums, packed, in_packed});
  gradient_norm(stream_, kLabel, {norm, clip, sums, 1.5});
  square_sums(stream_, kLabel, {sums_spread, spread, in_spread});
  gradient_norm(stream_, kLabel, {norm_spread, clip_spread, sums_spread, 1.5});
  EXPECT_NEAR(values(norm)[0], std::sqrt(exact), 1e-5 * std::sqrt(exact));
  EXPECT_NEAR(values(clip)[0], 1.5 / (std::sqrt(exact) + 1e-6), 1e-6);
  EXPECT_EQ(values(norm), values(norm_spread));
  EXPECT_EQ(values(clip), values(clip_spread));
  EXPECT_EQ(values<double>(sums), values<double>(sums_spread));

  for (const double above : {1.01, 1.5, 1e6}) {
    gradient_norm(stream_, kLabel, {norm, clip, sums, above * std::sqrt(exact)});
    EXPECT_EQ(values(clip)[0], 1.0f);
  }
  gradient_norm(stream_, kLabel, {norm, clip, sums, 0});
  EXPECT_EQ(values(clip)[0], 1.0f);
}

// Clipping on or off: never a factor that an update could work with.
TEST_F(OperationTest, ANormThatIsNotFiniteClipsToNaN) {
  const Tensor gradients = tensor({20}), norm = tensor({1}), clip = tensor({1}), sums = tensor({1}, DType::kF64);
  const Tensor weights = tensor({20}), first = tensor({20}), second = tensor({20});
  const Tensor scalars = tensor({3}, DType::kF64);
  allocate();
  const FlatSegment segments[] = {{0, 20, true}};
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    for (const double max_norm : {1.5, 0.0}) {
      SCOPED_TRACE(::testing::Message() << bad << ", clipped at " << max_norm);
      fill(gradients, 0.5f);
      data<float>(gradients)[5] = bad;
      fill(weights, 1.0f);
      fill(first, 0.0f);
      fill(second, 0.0f);
      square_sums(stream_, kLabel, {sums, gradients, segments});
      gradient_norm(stream_, kLabel, {norm, clip, sums, max_norm});
      EXPECT_FALSE(std::isfinite(values(norm)[0]));
      EXPECT_TRUE(std::isnan(values(clip)[0])) << values(clip)[0];
      constexpr AdamWOptions kOptions = {0.9, 0.95, 1e-8, 0.1};
      fill_scalars(scalars, adamw_scalars(kOptions, 0.01, 1));
      adamw(stream_, kLabel, {weights, first, second, gradients, clip, scalars, segments, kOptions});
      for (const float weight : values(weights)) EXPECT_TRUE(std::isnan(weight)) << weight;
    }
  }
}

TEST_F(OperationTest, AdamWFollowsItsDefinition) {
  Random random(305);
  const std::int64_t elems = 50;
  const Tensor w = tensor({elems}, DType::kF64), m = tensor({elems}, DType::kF64), v = tensor({elems}, DType::kF64);
  const Tensor g = tensor({elems}, DType::kF64), clip = tensor({1}, DType::kF64), scalars = tensor({3}, DType::kF64);
  allocate();
  const auto start = random.normal<double>(elems);
  fill(w, start);
  fill(clip, 0.5);
  const FlatSegment segments[] = {{0, 20, true}, {24, 20, false}};
  auto weights = start;
  std::vector<double> first(static_cast<std::size_t>(elems)), second(first);
  for (int step = 1; step <= 3; ++step) {
    const auto gradients = random.normal<double>(elems);
    fill(g, gradients);
    constexpr AdamWOptions kOptions = {0.9, 0.95, 1e-8, 0.1};
    fill_scalars(scalars, adamw_scalars(kOptions, 0.01, step));
    adamw(stream_, kLabel, {w, m, v, g, clip, scalars, segments, kOptions});
    for (std::size_t i = 0; i < 44; ++i) {
      if (i >= 20 && i < 24) continue;  // the gap between the segments
      const double gradient = 0.5 * gradients[i];
      first[i] = 0.9 * first[i] + 0.1 * gradient;
      second[i] = 0.95 * second[i] + 0.05 * gradient * gradient;
      const double m_hat = first[i] / (1 - std::pow(0.9, step)), v_hat = second[i] / (1 - std::pow(0.95, step));
      const double decay = i < 20 ? 0.1 : 0.0;
      weights[i] -= 0.01 * (m_hat / (std::sqrt(v_hat) + 1e-8) + decay * weights[i]);
    }
  }
  for (std::size_t i = 0; i < weights.size(); ++i) EXPECT_NEAR(values<double>(w)[i], weights[i], 1e-12) << i;
}

// What is enqueued is the same in every step: one operation, run again when other scalars lie there.
TEST_F(OperationTest, AdamWReadsItsScalarsWhenItRuns) {
  Random random(309);
  const std::int64_t elems = 9;
  const Tensor w = tensor({elems}), m = tensor({elems}), v = tensor({elems}), g = tensor({elems}), clip = tensor({1});
  const Tensor scalars = tensor({3}, DType::kF64);
  allocate();
  const FlatSegment segments[] = {{0, elems, true}};
  constexpr AdamWOptions kOptions = {0.9, 0.95, 1e-8, 0.1};
  const Body again = AdamW{w, m, v, g, clip, scalars, segments, kOptions}.on_cpu(CpuCode::fastest());
  const auto start = random.normal(elems);
  const auto gradients = random.normal(elems);
  fill(g, gradients);
  fill(clip, 1.0f);
  const auto two_steps = [&](const std::function<void()>& update) {
    fill(w, start);
    fill(m, 0.0f);
    fill(v, 0.0f);
    std::vector<std::vector<float>> out;
    for (const int step : {1, 2}) {
      fill_scalars(scalars, adamw_scalars(kOptions, 0.01 * step, step));
      update();
      out.push_back(values(w));
    }
    return out;
  };
  const auto enqueued = two_steps([&] { adamw(stream_, kLabel, {w, m, v, g, clip, scalars, segments, kOptions}); });
  EXPECT_EQ(two_steps([&] { again({}); }), enqueued);
  // The first step moves a weight by the learning rate, the second by twice as much.
  for (std::size_t i = 0; i < 9; ++i) {
    EXPECT_NEAR(enqueued[0][i], start[i] * 0.999f - std::copysign(0.01f, gradients[i]), 1e-5);
    EXPECT_NEAR(enqueued[1][i], enqueued[0][i] * 0.998f - std::copysign(0.02f, gradients[i]), 1e-5);
  }
}

TEST(AdamWScalars, AreTheRateAndTheBiasCorrections) {
  const AdamWScalars scalars = adamw_scalars({0.5, 0.75, 1e-8, 0.1}, 0.25, 3);
  EXPECT_EQ(scalars[0], 0.25);
  EXPECT_EQ(scalars[1], 1 - 0.125);
  EXPECT_EQ(scalars[2], 1 - 0.421875);
  EXPECT_DEATH(adamw_scalars({0.5, 0.75, 1e-8, 0.1}, 0.25, 0), "step is 0, counts from 1");
}

// In f32, with the slowest decay that a configuration may ask for, where 1 - beta2 in float would be 1.3 % off.
TEST_F(OperationTest, AdamWKeepsItsPrecisionWithSlowDecay) {
  Random random(306);
  const std::int64_t elems = 50;
  const Tensor w = tensor({elems}), m = tensor({elems}), v = tensor({elems}), g = tensor({elems}), clip = tensor({1});
  const Tensor scalars = tensor({3}, DType::kF64);
  allocate();
  const auto start = random.normal(elems);
  fill(w, start);
  fill(m, 0.0f);
  fill(v, 0.0f);
  fill(clip, 1.0f);
  const FlatSegment segments[] = {{0, elems, true}};
  std::vector<double> weights = widened(start), first(50), second(50);
  constexpr double kBeta1 = 0.9999, kBeta2 = 0.999999;
  for (int step = 1; step <= 5; ++step) {
    const auto gradients = random.normal(elems);
    fill(g, gradients);
    constexpr AdamWOptions kOptions = {kBeta1, kBeta2, 1e-8, 0.1};
    fill_scalars(scalars, adamw_scalars(kOptions, 0.01, step));
    adamw(stream_, kLabel, {w, m, v, g, clip, scalars, segments, kOptions});
    for (std::size_t i = 0; i < 50; ++i) {
      const double gradient = gradients[i];
      first[i] = kBeta1 * first[i] + (1 - kBeta1) * gradient;
      second[i] = kBeta2 * second[i] + (1 - kBeta2) * gradient * gradient;
      const double m_hat = first[i] / (1 - std::pow(kBeta1, step)), v_hat = second[i] / (1 - std::pow(kBeta2, step));
      weights[i] -= 0.01 * (m_hat / (std::sqrt(v_hat) + 1e-8) + 0.1 * weights[i]);
    }
  }
  EXPECT_LE(relative_error(values(m), first), 1e-6);
  EXPECT_LE(relative_error(values(v), second), 1e-6);
  EXPECT_LE(relative_error(values(w), weights), 1e-6);
}

TEST_F(OperationTest, FingerprintSeesBitsAndPlacesOfEveryType) {
  const Tensor out = tensor({1}, DType::kI64);
  const std::vector<Tensor> tensors = {tensor({67}), tensor({33}, DType::kF64), tensor({131}, DType::kBF16),
                                       tensor({70}, DType::kI32), tensor({77}, DType::kU8)};
  allocate();
  Random random(307);
  const auto print = [&](const Tensor& data) {
    fill(out, std::int64_t{-1});
    fingerprint(stream_, kLabel, {out, data});
    return values<std::int64_t>(out)[0];
  };
  for (const Tensor& data : tensors) {
    SCOPED_TRACE(data.describe());
    std::byte* const bytes = strake::cpu::bytes(data);
    for (std::size_t i = 0; i < data.extent_bytes(); ++i) bytes[i] = static_cast<std::byte>(random.integer(0, 255));
    const std::int64_t whole = print(data);
    EXPECT_EQ(print(data), whole);
    expect_declared({data}, {out});
    EXPECT_EQ(static_cast<std::int64_t>(fingerprint({bytes, data.extent_bytes()})), whole) << "of the host";
    // Wherever it lies.
    const std::int64_t behind = data.elems() - 1;
    const Tensor part = data.flat(1, behind);
    EXPECT_EQ(print(part), static_cast<std::int64_t>(fingerprint({strake::cpu::bytes(part), part.extent_bytes()})));
    for (std::size_t bit = 0; bit < 8 * data.extent_bytes(); ++bit) {
      const auto flip = static_cast<std::byte>(1u << bit % 8);
      bytes[bit / 8] ^= flip;
      EXPECT_NE(print(data), whole) << "bit " << bit;
      bytes[bit / 8] ^= flip;
    }
    // Every element with the one behind it, and with the last.
    const std::size_t elem = size_bytes(data.dtype());
    for (std::size_t i = 0; i + 2 * elem <= data.extent_bytes(); i += elem) {
      for (const std::size_t other : {i + elem, data.extent_bytes() - elem}) {
        const bool same = std::memcmp(bytes + i, bytes + other, elem) == 0;
        std::swap_ranges(bytes + i, bytes + i + elem, bytes + other);
        EXPECT_EQ(print(data) == whole, same || i == other) << i << " and " << other;
        std::swap_ranges(bytes + i, bytes + i + elem, bytes + other);
      }
    }
    EXPECT_EQ(print(data), whole);
  }
  // A part is not the whole, nor zeros more or less at its end.
  const Tensor zeros = tensors[0];
  fill(zeros, 0.0f);
  EXPECT_NE(print(zeros.flat(0, 64)), print(zeros.flat(0, 32)));
}

}  // namespace
}  // namespace strake::kernels
