// Every version of an operation's f32 code that this CPU can run (vector code of each instruction set, oneDNN, the f32
// reference) against the reference in double: odd shapes, outputs poisoned with NaN, guards around them, and the same
// bits at any alignment.
#include <gtest/gtest.h>

#include <array>

#include "kernels/cpu/code.h"
#include "kernels/layer_norm.h"
#include "kernels/rms_norm.h"
#include "kernels/rotary.h"
#include "kernels/swiglu.h"
#include "tests/kernels/operands.h"

namespace strake::kernels {
namespace {

using namespace strake::kernels::testing;
using Tensors = std::vector<Tensor>;

class CpuCodeTest : public ::testing::TestWithParam<std::size_t> {
 protected:
  CpuCode code() const { return CpuCode::all()[GetParam()]; }
};

INSTANTIATE_TEST_SUITE_P(Cpu, CpuCodeTest, ::testing::Range<std::size_t>(0, CpuCode::all().size()),
                         [](const auto& parameter) {
                           std::string name = CpuCode::all()[parameter.param].name();
                           std::replace(name.begin(), name.end(), '+', '_');
                           return name;
                         });

const std::array<std::int64_t, 2> kRowShapes[] = {{1, 1}, {3, 7}, {5, 16}, {9, 64}, {23, 100}, {8, 129}, {64, 256}};

TEST_P(CpuCodeTest, LayerNorm) {
  Random random(106);
  for (const auto& [rows, channels] : kRowShapes) {
    SCOPED_TRACE(::testing::Message() << rows << " x " << channels);
    const std::int64_t elems = rows * channels;
    const Operand x = operand({rows, channels}, random.normal(elems, 2, 0.5));
    const Operand delta = operand({rows, channels}, random.normal(elems));
    const Operand weight = operand({channels}, random.normal(channels, 0.5, 1));
    const Operand bias = operand({channels}, random.normal(channels));
    expect_as_in_double(code(), {output({rows, channels}), output({rows}), output({rows}), x, weight, bias}, {0, 1, 2},
                        [](const Tensors& t) { return LayerNormForward{t[0], t[1], t[2], t[3], t[4], t[5]}; });

    const Results forward = expect_as_in_double(
        code(),
        {output({rows, channels}), output({rows, channels}), output({rows}), output({rows}), x, delta, weight, bias},
        {0, 1, 2, 3},
        [](const Tensors& t) { return ResidualLayerNormForward{t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7]}; });
    const Results in_place =
        run(code(), DType::kF32, {x, output({rows, channels}), output({rows}), output({rows}), delta, weight, bias},
            [](const Tensors& t) { return ResidualLayerNormForward{t[0], t[1], t[2], t[3], t[0], t[4], t[5], t[6]}; });
    for (std::size_t i = 0; i < 4; ++i) EXPECT_TRUE(equal_bits(in_place[i], forward[i])) << i;

    const Operand x_out = operand({rows, channels}, forward[0]), mean = operand({rows}, forward[2]),
                  rstd = operand({rows}, forward[3]);
    const Operand dy = operand({rows, channels}, random.normal(elems));
    const Operand old_dx = operand({rows, channels}, random.normal(elems));
    const Operand old_dweight = operand({channels}, random.normal(channels));
    const Operand old_dbias = operand({channels}, random.normal(channels));
    for (const Accumulate accumulate : {Accumulate::kOverwrite, Accumulate::kAdd}) {
      const bool add = accumulate == Accumulate::kAdd;
      expect_as_in_double(code(),
                          {old_dx, add ? old_dweight : output({channels}), add ? old_dbias : output({channels}), dy,
                           x_out, mean, rstd, weight},
                          {0, 1, 2}, [accumulate](const Tensors& t) {
                            return LayerNormBackward{t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], accumulate};
                          });
    }
  }
}

TEST_P(CpuCodeTest, RmsNorm) {
  Random random(113);
  for (const auto& [rows, channels] : kRowShapes) {
    SCOPED_TRACE(::testing::Message() << rows << " x " << channels);
    const std::int64_t elems = rows * channels;
    const Operand x = operand({rows, channels}, random.normal(elems, 2, 0.5));
    const Operand delta = operand({rows, channels}, random.normal(elems));
    const Operand weight = operand({channels}, random.normal(channels, 0.5, 1));
    expect_as_in_double(code(), {output({rows, channels}), output({rows}), x, weight}, {0, 1}, [](const Tensors& t) {
      return RmsNormForward{t[0], t[1], t[2], t[3], 1e-5};
    });

    const Results forward = expect_as_in_double(
        code(), {output({rows, channels}), output({rows, channels}), output({rows}), x, delta, weight}, {0, 1, 2},
        [](const Tensors& t) { return ResidualRmsNormForward{t[0], t[1], t[2], t[3], t[4], t[5], 1e-6}; });
    const Results in_place =
        run(code(), DType::kF32, {x, output({rows, channels}), output({rows}), delta, weight},
            [](const Tensors& t) { return ResidualRmsNormForward{t[0], t[1], t[2], t[0], t[3], t[4], 1e-6}; });
    for (std::size_t i = 0; i < 3; ++i) EXPECT_TRUE(equal_bits(in_place[i], forward[i])) << i;

    const Operand x_out = operand({rows, channels}, forward[0]), rstd = operand({rows}, forward[2]);
    const Operand dy = operand({rows, channels}, random.normal(elems));
    const Operand old_dx = operand({rows, channels}, random.normal(elems));
    const Operand old_dweight = operand({channels}, random.normal(channels));
    for (const Accumulate accumulate : {Accumulate::kOverwrite, Accumulate::kAdd}) {
      const bool add = accumulate == Accumulate::kAdd;
      expect_as_in_double(
          code(), {old_dx, add ? old_dweight : output({channels}), dy, x_out, rstd, weight}, {0, 1},
          [accumulate](const Tensors& t) { return RmsNormBackward{t[0], t[1], t[2], t[3], t[4], t[5], accumulate}; });
    }
  }
}

// Epsilon counts where a row is small, and keeps a row of zeros finite.
TEST_P(CpuCodeTest, RmsNormOfSmallRows) {
  const std::vector<double> x = {3.0 / 1024, -4.0 / 1024, 0, 0};
  for (const double epsilon : {1e-5, 1e-6}) {
    const Results out = expect_as_in_double(
        code(), {output({2, 2}), output({2}), operand({2, 2}, x), operand({2}, std::vector<double>{1, 2})}, {0, 1},
        [epsilon](const Tensors& t) {
          return RmsNormForward{t[0], t[1], t[2], t[3], epsilon};
        });
    const double rstd = 1 / std::sqrt(12.5 / 1024 / 1024 + epsilon);
    EXPECT_NEAR(out[1][0], rstd, 1e-5 * rstd);
    EXPECT_NEAR(out[0][1], -8.0 / 1024 * rstd, 1e-5);
    EXPECT_EQ(out[0][2], 0);
  }
}

TEST_P(CpuCodeTest, Rotary) {
  using enum QkvLayout::Order;
  Random random(115);
  for (const auto& [heads, kv_heads, head_size] :
       {std::array<std::int64_t, 3>{1, 1, 2}, {2, 2, 8}, {6, 2, 10}, {3, 1, 32}, {4, 4, 66}, {5, 1, 128}}) {
    SCOPED_TRACE(::testing::Message() << heads << " heads of " << head_size << ", " << kv_heads << " key heads");
    const std::vector<double> frequencies = rotary_frequencies(head_size, 10000);
    for (const QkvLayout::Order order : {kByKind, kByGroup}) {
      const QkvLayout to{heads, kv_heads, head_size, kByKind}, from{heads, kv_heads, head_size, order};
      const std::int64_t row = to.row_elems(), elems = 2 * 7 * row;
      const Operand x = operand({2, 7, row}, random.normal(elems));
      const Results forward = expect_as_in_double(code(), {output({2, 7, row}), x}, {0}, [&](const Tensors& t) {
        return RotaryForward{t[0], t[1], to, from, frequencies};
      });
      const Results backward = expect_as_in_double(code(), {output({2, 7, row}), operand({2, 7, row}, forward[0])}, {0},
                                                   [&](const Tensors& t) {
                                                     return RotaryBackward{t[0], t[1], from, to, frequencies};
                                                   });
      EXPECT_LE(relative_error(backward[0], x.values), kTolerance);
      if (order == kByGroup) continue;
      const Results in_place = run(code(), DType::kF32, {x}, [&](const Tensors& t) {
        return RotaryForward{t[0], t[0], to, to, frequencies};
      });
      EXPECT_TRUE(equal_bits(in_place[0], forward[0]));
    }
  }
}

TEST_P(CpuCodeTest, Swiglu) {
  Random random(114);
  for (const auto& [rows, columns] : kRowShapes) {
    SCOPED_TRACE(::testing::Message() << rows << " x " << columns);
    auto values = random.normal(2 * rows * columns, 3);
    if (rows > 1) values[0] = -100;  // a gate where the exponential is cut off
    const Operand x = operand({rows, 2 * columns}, values);
    const Operand dy = operand({rows, columns}, random.normal(rows * columns));
    expect_as_in_double(code(), {output({rows, columns}), x}, {0}, [](const Tensors& t) {
      return SwigluForward{t[0], t[1]};
    });
    const Results backward =
        expect_as_in_double(code(), {output({rows, 2 * columns}), dy, x}, {0}, [](const Tensors& t) {
          return SwigluBackward{t[0], t[1], t[2]};
        });
    const Results in_place = run(code(), DType::kF32, {x, dy}, [](const Tensors& t) {
      return SwigluBackward{t[0], t[1], t[0]};
    });
    EXPECT_TRUE(equal_bits(in_place[0], backward[0]));
  }
}

}  // namespace
}  // namespace strake::kernels
