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

}  // namespace
}  // namespace strake::kernels::cpu
