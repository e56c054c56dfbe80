// Every f32 kernel table that this CPU can run (vector code of each instruction set, oneDNN, the f32 reference)
// against the reference in double: odd shapes, outputs poisoned with NaN, guards around them, and the same bits at any
// alignment.
#include "kernels/cpu/kernel_table.h"

#include <gtest/gtest.h>

#include "kernels/cpu/bodies.h"
#include "tests/kernels/arrays.h"

namespace strake::kernels::cpu {
namespace {

using namespace strake::kernels::testing;
using reference::AttentionShape;

class KernelTableTest : public ::testing::TestWithParam<std::size_t> {
 protected:
  const KernelTable<float>& table() const { return f32_kernel_tables()[GetParam()].table; }
};

INSTANTIATE_TEST_SUITE_P(Cpu, KernelTableTest, ::testing::Range<std::size_t>(0, f32_kernel_tables().size()),
                         [](const auto& parameter) {
                           std::string name = f32_kernel_tables()[parameter.param].name;
                           std::replace(name.begin(), name.end(), '+', '_');
                           return name;
                         });

struct Extents {
  std::int64_t rows, outs, ins;
};
const Extents kMatmulShapes[] = {{1, 1, 1}, {2, 3, 5}, {17, 33, 7}, {64, 48, 16}, {130, 67, 129}, {256, 96, 32}};

TEST_P(KernelTableTest, LinearForward) {
  Random random(101);
  for (const auto& [rows, outs, ins] : kMatmulShapes) {
    SCOPED_TRACE(::testing::Message() << rows << " x " << outs << " x " << ins);
    const auto x = random.normal(rows * ins), weight = random.normal(outs * ins), bias = random.normal(outs);
    for (const bool with_bias : {false, true}) {
      std::vector<double> ref(static_cast<std::size_t>(rows * outs));
      reference::linear_forward(ref.data(), widened(x).data(), widened(weight).data(),
                                with_bias ? widened(bias).data() : nullptr, rows, outs, ins);
      Output y(rows * outs), y_shifted(rows * outs, 3);
      const Output x_shifted(x, 5), weight_shifted(weight, 1);
      table().linear_forward(y.data(), x.data(), weight.data(), with_bias ? bias.data() : nullptr, rows, outs, ins);
      EXPECT_LE(relative_error(y, ref), kTolerance);
      table().linear_forward(y_shifted.data(), std::span<const float>(x_shifted).data(),
                             std::span<const float>(weight_shifted).data(), with_bias ? bias.data() : nullptr, rows,
                             outs, ins);
      EXPECT_TRUE(equal_bits(y, y_shifted));
    }
  }
}

TEST_P(KernelTableTest, LinearBackward) {
  Random random(102);
  for (const auto& [rows, outs, ins] : kMatmulShapes) {
    SCOPED_TRACE(::testing::Message() << rows << " x " << outs << " x " << ins);
    const auto dy = random.normal(rows * outs), x = random.normal(rows * ins), weight = random.normal(outs * ins);
    const auto old_dweight = random.normal(outs * ins), old_dbias = random.normal(outs);
    for (const bool accumulate : {false, true}) {
      auto ref_dweight = widened(old_dweight), ref_dbias = widened(old_dbias);
      reference::linear_backward_weight(ref_dweight.data(), widened(dy).data(), widened(x).data(), rows, outs, ins,
                                        accumulate);
      reference::column_sums(ref_dbias.data(), widened(dy).data(), rows, outs, accumulate);
      const auto poisoned = std::vector<float>(old_dweight.size(), std::nanf(""));
      for (const std::int64_t shift : {0, 3}) {
        Output dweight(accumulate ? old_dweight : poisoned, shift);
        Output dbias(accumulate ? old_dbias : std::vector<float>(old_dbias.size(), std::nanf("")), shift);
        table().linear_backward_weight(dweight.data(), dy.data(), x.data(), rows, outs, ins, accumulate);
        table().column_sums(dbias.data(), dy.data(), rows, outs, accumulate);
        EXPECT_LE(relative_error(dweight, ref_dweight), kTolerance);
        EXPECT_LE(relative_error(dbias, ref_dbias), kTolerance);
      }
    }
    std::vector<double> ref_dx(x.size());
    reference::linear_backward_input(ref_dx.data(), widened(dy).data(), widened(weight).data(), rows, outs, ins);
    Output dx(rows * ins), dx_shifted(rows * ins, 7);
    const Output dy_shifted(dy, 1), weight_shifted(weight, 9);
    table().linear_backward_input(dx.data(), dy.data(), weight.data(), rows, outs, ins);
    EXPECT_LE(relative_error(dx, ref_dx), kTolerance);
    table().linear_backward_input(dx_shifted.data(), std::span<const float>(dy_shifted).data(),
                                  std::span<const float>(weight_shifted).data(), rows, outs, ins);
    EXPECT_TRUE(equal_bits(dx, dx_shifted));
  }
}

// Sums of small integers are exact, so that adding to a gradient is overwriting and then adding, bit for bit.
TEST_P(KernelTableTest, LinearBackwardAddsToWhatIsThere) {
  Random random(103);
  const std::int64_t rows = 70, outs = 37, ins = 45;
  const auto dy = random.small_integers(rows * outs), x = random.small_integers(rows * ins);
  const auto old = random.small_integers(outs * ins);
  Output fresh(outs * ins), added(old);
  table().linear_backward_weight(fresh.data(), dy.data(), x.data(), rows, outs, ins, false);
  table().linear_backward_weight(added.data(), dy.data(), x.data(), rows, outs, ins, true);
  for (std::size_t i = 0; i < old.size(); ++i) EXPECT_EQ(added.data()[i], fresh.data()[i] + old[i]);
}

TEST_P(KernelTableTest, Attention) {
  Random random(104);
  const AttentionShape shapes[] = {{1, 1, 1, 1},   {2, 3, 1, 5},    {1, 16, 2, 16},  {2, 33, 3, 20},
                                   {1, 65, 2, 32}, {1, 128, 1, 64}, {1, 131, 2, 33}, {1, 20, 1, 272}};
  for (const AttentionShape& shape : shapes) {
    const auto& [batch, length, heads, size] = shape;
    SCOPED_TRACE(::testing::Message() << batch << " x " << length << ", " << heads << " heads of " << size);
    const std::int64_t elems = batch * length * shape.channels();
    const auto qkv = random.normal(3 * elems), dout = random.normal(elems);
    std::vector<double> ref_out(static_cast<std::size_t>(elems));
    std::vector<double> ref_stats(static_cast<std::size_t>(batch * heads * length));
    std::vector<double> ref_dqkv(static_cast<std::size_t>(3 * elems));
    reference::attention_forward(ref_out.data(), ref_stats.data(), widened(qkv).data(), shape);
    reference::attention_backward<double>(ref_dqkv.data(), widened(dout).data(), widened(qkv).data(), ref_out.data(),
                                          ref_stats.data(), nullptr, shape);

    Output out(elems), stats(batch * heads * length);
    Output out_shifted(elems, 1), stats_shifted(batch * heads * length, 2);
    const Output qkv_shifted(qkv, 3);
    const float* const shifted_data = std::span<const float>(qkv_shifted).data();
    table().attention_forward(out.data(), stats.data(), qkv.data(), shape);
    EXPECT_LE(relative_error(out, ref_out), kTolerance);
    EXPECT_LE(relative_error(stats, ref_stats), kTolerance);
    table().attention_forward(out_shifted.data(), stats_shifted.data(), shifted_data, shape);
    EXPECT_TRUE(equal_bits(out, out_shifted));
    EXPECT_TRUE(equal_bits(stats, stats_shifted));

    Output dqkv(3 * elems), dqkv_shifted(3 * elems, 5);
    Output scratch(attention_backward_scratch_elems(shape)),
        scratch_shifted(attention_backward_scratch_elems(shape), 1);
    table().attention_backward(dqkv.data(), dout.data(), qkv.data(), out.data(), stats.data(), scratch.data(), shape);
    EXPECT_LE(relative_error(dqkv, ref_dqkv), kTolerance);
    table().attention_backward(dqkv_shifted.data(), dout.data(), shifted_data, out.data(), stats.data(),
                               scratch_shifted.data(), shape);
    EXPECT_TRUE(equal_bits(dqkv, dqkv_shifted));
  }
}

// Scores far apart: the running maximum must keep every exponential in range.
TEST_P(KernelTableTest, AttentionWithLargeScores) {
  Random random(105);
  const AttentionShape shape = {1, 150, 1, 16};
  const std::int64_t elems = shape.length * shape.channels();
  const auto qkv = random.normal(3 * elems, 12), dout = random.normal(elems);
  std::vector<double> ref_out(static_cast<std::size_t>(elems)), ref_stats(150);
  reference::attention_forward(ref_out.data(), ref_stats.data(), widened(qkv).data(), shape);
  Output out(elems), stats(shape.length);
  table().attention_forward(out.data(), stats.data(), qkv.data(), shape);
  EXPECT_LE(relative_error(stats, ref_stats), kTolerance);
  // An error of 1e-7 in a score of several hundred is one of 1e-5 in its exponential.
  EXPECT_LE(relative_error(out, ref_out), 30 * kTolerance);
}

TEST_P(KernelTableTest, Gelu) {
  Random random(107);
  for (const std::int64_t elems : {1, 15, 16, 17, 1000}) {
    SCOPED_TRACE(elems);
    auto x = random.normal(elems, 3);
    const auto dy = random.normal(elems);
    x[0] = -30;  // far out, where the exponential is cut off
    std::vector<double> y_ref(x.size()), dx_ref(x.size());
    reference::gelu_forward(y_ref.data(), widened(x).data(), elems);
    reference::gelu_backward(dx_ref.data(), widened(dy).data(), widened(x).data(), elems);
    Output y(elems, 1), dx(elems, 2), in_place(dy);
    table().gelu_forward(y.data(), x.data(), elems);
    table().gelu_backward(dx.data(), dy.data(), x.data(), elems);
    table().gelu_backward(in_place.data(), in_place.data(), x.data(), elems);
    EXPECT_LE(relative_error(y, y_ref), kTolerance);
    EXPECT_LE(relative_error(dx, dx_ref), kTolerance);
    EXPECT_TRUE(equal_bits(dx, in_place));
  }
}

// 1 / (1 + e^-z) over the whole range pins the exponential: z runs past where it is cut off on both sides.
TEST_P(KernelTableTest, GeluIsAccurateElementByElement) {
  std::vector<float> x;
  for (float value = -5.0f; value <= 12.0f; value += 0.001f) x.push_back(value);
  const auto elems = static_cast<std::int64_t>(x.size());
  std::vector<double> ref(x.size());
  reference::gelu_forward(ref.data(), widened(x).data(), elems);
  Output y(elems);
  table().gelu_forward(y.data(), x.data(), elems);
  for (std::size_t i = 0; i < x.size(); ++i) {
    // The f32 reference cancels in 1 + tanh for negative x; the vector code does not.
    ASSERT_NEAR(y.data()[i], ref[i], 1e-6 * std::max(std::abs(ref[i]), 0.5)) << "at " << x[i];
  }
}

TEST_P(KernelTableTest, NotANumberPassesThrough) {
  std::vector<float> x(33, 0.5f);
  x[20] = std::nanf("");
  Output y(33);
  table().gelu_forward(y.data(), x.data(), 33);
  EXPECT_TRUE(std::isnan(y.data()[20]));
  EXPECT_FALSE(std::isnan(y.data()[21]));
  const std::int32_t target = 0;
  Output logits(x), loss(1);
  table().cross_entropy_forward_backward(logits.data(), loss.data(), &target, 1, 33, 33, 1.0f);
  EXPECT_TRUE(std::isnan(loss.data()[0]));
}

TEST_P(KernelTableTest, Add) {
  Random random(108);
  for (const std::int64_t elems : {1, 16, 37}) {
    const auto a = random.normal(elems), b = random.normal(elems);
    Output y(elems, 1), in_place(a);
    table().add(y.data(), a.data(), b.data(), elems);
    table().add(in_place.data(), in_place.data(), b.data(), elems);
    for (std::size_t i = 0; i < a.size(); ++i) EXPECT_EQ(y.data()[i], a[i] + b[i]);
    EXPECT_TRUE(equal_bits(y, in_place));
  }
}

TEST_P(KernelTableTest, CrossEntropy) {
  Random random(109);
  const std::int64_t rows = 9;
  for (const auto& [vocab, columns] :
       {std::pair<std::int64_t, std::int64_t>{1, 1}, {5, 8}, {61, 64}, {256, 256}, {257, 300}}) {
    SCOPED_TRACE(::testing::Message() << vocab << " of " << columns);
    const auto logits = random.normal(rows * columns, 4);
    const auto targets = random.tokens(rows, vocab);
    auto gradient_ref = widened(logits);
    std::vector<double> losses_ref(static_cast<std::size_t>(rows));
    reference::cross_entropy_forward_backward(gradient_ref.data(), losses_ref.data(), targets.data(), rows, vocab,
                                              columns, 0.25);
    Output gradient(logits), losses(rows), losses_alone(rows);
    table().cross_entropy_forward(losses_alone.data(), logits.data(), targets.data(), rows, vocab, columns);
    table().cross_entropy_forward_backward(gradient.data(), losses.data(), targets.data(), rows, vocab, columns, 0.25f);
    EXPECT_LE(relative_error(gradient, gradient_ref), kTolerance);
    EXPECT_LE(relative_error(losses, losses_ref), kTolerance);
    EXPECT_TRUE(equal_bits(losses, losses_alone));
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t v = vocab; v < columns; ++v) EXPECT_EQ(gradient.data()[r * columns + v], 0.0f);
    }
  }
}

TEST_P(KernelTableTest, SumOfSquaresHasTheReferencesBits) {
  Random random(110);
  for (const std::int64_t elems : {0, 1, 15, 16, 17, 1000, 32768}) {
    auto gradients = random.normal(elems);
    // Magnitudes far apart, so that another order of addition gives other bits.
    for (float& value : gradients) value *= std::exp2(static_cast<float>(random.integer(-16, 16)));
    const Output shifted(gradients, 3);
    const double sum = table().sum_of_squares(gradients.data(), elems);
    EXPECT_EQ(sum, reference::sum_of_squares(gradients.data(), elems));
    EXPECT_EQ(sum, table().sum_of_squares(std::span<const float>(shifted).data(), elems));
  }
}

TEST_P(KernelTableTest, AdamW) {
  Random random(111);
  const reference::AdamWScalars usual = {.beta1 = 0.9,
                                         .one_minus_beta1 = 0.1,
                                         .beta2 = 0.95,
                                         .one_minus_beta2 = 0.05,
                                         .epsilon = 1e-8,
                                         .step_size = 3e-2,
                                         .second_moment_scale = 4,
                                         .keep = 0.999};
  for (const std::int64_t elems : {1, 16, 77}) {
    const auto weights = random.normal(elems), m = random.normal(elems, 0.1), g = random.normal(elems);
    auto v = random.normal(elems, 0.1);
    for (float& value : v) value *= value;
    auto weights_ref = widened(weights), m_ref = widened(m), v_ref = widened(v);
    reference::adamw(weights_ref.data(), m_ref.data(), v_ref.data(), widened(g).data(), elems, 0.5, usual);
    Output weights_out(weights, 1), m_out(m, 2), v_out(v, 3);
    table().adamw(weights_out.data(), m_out.data(), v_out.data(), g.data(), elems, 0.5f, usual);
    EXPECT_LE(relative_error(weights_out, weights_ref), kTolerance);
    EXPECT_LE(relative_error(m_out, m_ref), kTolerance);
    EXPECT_LE(relative_error(v_out, v_ref), kTolerance);
  }

  // From moments of zero the factor 1 - beta is all that counts, and in float it is 1.3 % off here.
  reference::AdamWScalars slow = usual;
  slow.beta1 = slow.beta2 = 0.999999;
  slow.one_minus_beta1 = slow.one_minus_beta2 = 1 - 0.999999;
  slow.second_moment_scale = 1 / slow.one_minus_beta2;
  const auto weights = random.normal(77), g = random.normal(77);
  auto weights_ref = widened(weights);
  std::vector<double> m_ref(77), v_ref(77);
  reference::adamw(weights_ref.data(), m_ref.data(), v_ref.data(), widened(g).data(), 77, 0.5, slow);
  Output weights_out(weights), m_out(std::vector<float>(77)), v_out(std::vector<float>(77));
  table().adamw(weights_out.data(), m_out.data(), v_out.data(), g.data(), 77, 0.5f, slow);
  EXPECT_LE(relative_error(weights_out, weights_ref), kTolerance);
  EXPECT_LE(relative_error(m_out, m_ref), kTolerance);
  EXPECT_LE(relative_error(v_out, v_ref), kTolerance);
}

TEST_P(KernelTableTest, FingerprintHasTheReferencesBits) {
  Random random(112);
  for (const std::int64_t size_bytes : {0, 1, 7, 8, 9, 16, 31, 63, 64, 65, 127, 1000, 4096, 4103}) {
    std::vector<std::byte> bytes(static_cast<std::size_t>(size_bytes + 3));
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random.integer(0, 255));
    for (const std::int64_t shift : {0, 3}) {
      EXPECT_EQ(table().fingerprint(bytes.data() + shift, size_bytes),
                reference::fingerprint(bytes.data() + shift, size_bytes))
          << size_bytes << " bytes, " << shift << " behind";
    }
  }
  // The first number of SplitMix64 from seed 1, and what a ninth byte adds.
  const std::byte nine[9] = {std::byte{1}, {}, {}, {}, {}, {}, {}, {}, std::byte{0xff}};
  EXPECT_EQ(table().fingerprint(nine, 8), 0x910a2dec89025cc1u);
  EXPECT_EQ(table().fingerprint(nine, 9), 0x808ee794b52ee9d6u);
}

}  // namespace
}  // namespace strake::kernels::cpu
