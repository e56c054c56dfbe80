// Every version of an operation's f32 code that this CPU can run (vector code of each instruction set, oneDNN, the f32
// reference) against the reference in double: odd shapes, outputs poisoned with NaN, guards around them, and the same
// bits at any alignment.
#include <gtest/gtest.h>

#include <array>
#include <memory>

#include "kernels/attention.h"
#include "kernels/cpu/code.h"
#include "kernels/cross_entropy.h"
#include "kernels/elementwise.h"
#include "kernels/fingerprint.h"
#include "kernels/layer_norm.h"
#include "kernels/matmul.h"
#include "kernels/optimizer.h"
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

struct AttentionCase {
  std::int64_t batch, length;
  QkvLayout layout;
};
const AttentionCase kAttentionCases[] = {
    {1, 1, {1, 1, 1}},    {2, 3, {1, 1, 5}},    {1, 16, {2, 2, 16}},
    {2, 33, {3, 3, 20}},  {1, 65, {2, 2, 32}},  {1, 128, {1, 1, 64}},
    {1, 131, {2, 2, 33}}, {1, 20, {1, 1, 272}}, {2, 33, {3, 3, 20, QkvLayout::Order::kByGroup}},
    {1, 5, {2, 1, 3}},    {2, 33, {6, 2, 20}},  {1, 131, {4, 1, 64}},
    {1, 70, {9, 3, 17}},  {1, 9, {2, 1, 300}},
};

// Of the vector code: poisoned, beyond what a test compares.
class AttentionScratch {
 public:
  AttentionScratch(std::int64_t length, std::int64_t head_size)
      : elems_(attention_backward_scratch_elems(DeviceKind::kCpu, length, head_size)),
        f32_(Tensor::reserve(arena_, DType::kF32, {elems_})),
        f64_(Tensor::reserve(arena_, DType::kF64, {elems_})) {
    arena_.allocate(*device_);
    std::fill_n(strake::cpu::data<float>(f32_), elems_, std::nanf(""));
  }
  const Tensor& of(const Tensor& operand) const { return operand.dtype() == DType::kF64 ? f64_ : f32_; }

 private:
  std::unique_ptr<Device> device_ = make_cpu_device();
  Arena arena_{"scratch", MemoryKind::kDevice};
  std::int64_t elems_;
  Tensor f32_, f64_;
};

TEST_P(CpuCodeTest, Attention) {
  Random random(104);
  for (const auto& [batch, length, layout] : kAttentionCases) {
    SCOPED_TRACE(::testing::Message() << batch << " x " << length << ", " << layout.heads << " heads of "
                                      << layout.head_size << ", " << layout.kv_heads << " key heads");
    const std::int64_t row = layout.row_elems(), channels = layout.heads * layout.head_size;
    const Operand qkv = operand({batch, length, row}, random.normal(batch * length * row));
    const Operand dout = operand({batch, length, channels}, random.normal(batch * length * channels));
    const Results forward =
        expect_as_in_double(code(), {output({batch, length, channels}), output({batch, layout.heads, length}), qkv},
                            {0, 1}, [&](const Tensors& t) {
                              const auto [q, k, v] = layout.views(t[2]);
                              return AttentionForward{t[0], t[1], q, k, v};
                            });
    const AttentionScratch scratch(length, layout.head_size);
    QkvLayout gradients = layout;  // of strides of their own, where heads can lie in the other order
    if (layout.heads == layout.kv_heads) gradients.order = QkvLayout::Order::kByGroup;
    expect_as_in_double(code(),
                        {output({batch, length, row}), dout, qkv, operand({batch, length, channels}, forward[0]),
                         operand({batch, layout.heads, length}, forward[1])},
                        {0}, [&](const Tensors& t) {
                          const auto [dq, dk, dv] = gradients.views(t[0]);
                          const auto [q, k, v] = layout.views(t[2]);
                          return AttentionBackward{dq, dk, dv, t[1], q, k, v, t[3], t[4], scratch.of(t[0])};
                        });
  }
}

// Scores far apart: the running maximum must keep every exponential in range.
TEST_P(CpuCodeTest, AttentionWithLargeScores) {
  Random random(105);
  const QkvLayout layout{1, 1, 16};
  const std::vector<Operand> operands = {output({1, 150, 16}), output({1, 1, 150}),
                                         operand({1, 150, 48}, random.normal(150 * 48, 12))};
  const auto make = [&](const Tensors& t) {
    const auto [q, k, v] = layout.views(t[2]);
    return AttentionForward{t[0], t[1], q, k, v};
  };
  const Results ref = run(CpuCode{}, DType::kF64, operands, make), out = run(code(), DType::kF32, operands, make);
  EXPECT_LE(relative_error(out[1], ref[1]), kTolerance);
  // An error of 1e-7 in a score of several hundred is one of 1e-5 in its exponential.
  EXPECT_LE(relative_error(out[0], ref[0]), 30 * kTolerance);
}

// Query heads that share a key head compute what they compute with a copy of it each, and the gradients of the copies
// add up in the order of the heads.
TEST_P(CpuCodeTest, SharedKeyHeadsAreRepeatedOnes) {
  Random random(116);
  const std::int64_t batch = 2, length = 37, heads = 6, kv_heads = 2, size = 12, channels = heads * size;
  const QkvLayout shared{heads, kv_heads, size}, repeated{heads, heads, size};
  const Operand qkv = operand({batch, length, shared.row_elems()}, random.normal(batch * length * shared.row_elems()));
  Operand copies = output({batch, length, repeated.row_elems()});
  for (std::int64_t token = 0; token < batch * length; ++token) {
    for (std::int64_t head = 0; head < 3 * heads; ++head) {
      const std::int64_t source = head < heads ? head : heads + (head - heads) / (heads / kv_heads);
      const auto from = qkv.values.begin() + token * shared.row_elems() + shared.begin(source);
      copies.values.insert(copies.values.end(), from, from + size);
    }
  }
  const Operand dout = operand({batch, length, channels}, random.normal(batch * length * channels));
  const AttentionScratch scratch(length, size);
  const auto forward_and_backward = [&](const QkvLayout& layout, const Operand& packed) {
    const Results forward =
        run(code(), DType::kF32, {output({batch, length, channels}), output({batch, heads, length}), packed},
            [&](const Tensors& t) {
              const auto [q, k, v] = layout.views(t[2]);
              return AttentionForward{t[0], t[1], q, k, v};
            });
    const Results backward = run(code(), DType::kF32,
                                 {output(packed.shape), dout, packed, operand(dout.shape, forward[0]),
                                  operand({batch, heads, length}, forward[1])},
                                 [&](const Tensors& t) {
                                   const auto [dq, dk, dv] = layout.views(t[0]);
                                   const auto [q, k, v] = layout.views(t[2]);
                                   return AttentionBackward{dq, dk, dv, t[1], q, k, v, t[3], t[4], scratch.of(t[0])};
                                 });
    return Results{forward[0], forward[1], backward[0]};
  };
  const Results of_shared = forward_and_backward(shared, qkv), of_copies = forward_and_backward(repeated, copies);
  EXPECT_TRUE(equal_bits(of_shared[0], of_copies[0]));
  EXPECT_TRUE(equal_bits(of_shared[1], of_copies[1]));
  std::vector<double> summed(of_shared[2].size());
  for (std::int64_t token = 0; token < batch * length; ++token) {
    for (std::int64_t head = 0; head < 3 * heads; ++head) {
      const std::int64_t target = head < heads ? head : heads + (head - heads) / (heads / kv_heads);
      for (std::int64_t d = 0; d < size; ++d) {
        summed[static_cast<std::size_t>(token * shared.row_elems() + shared.begin(target) + d)] +=
            of_copies[2][static_cast<std::size_t>(token * repeated.row_elems() + repeated.begin(head) + d)];
      }
    }
  }
  EXPECT_LE(relative_error(of_shared[2], summed), kTolerance);
}

INSTANTIATE_TEST_SUITE_P(Cpu, CpuCodeTest, ::testing::Range<std::size_t>(0, CpuCode::all().size()),
                         [](const auto& parameter) {
                           std::string name = CpuCode::all()[parameter.param].name();
                           std::replace(name.begin(), name.end(), '+', '_');
                           return name;
                         });

struct Extents {
  std::int64_t rows, outs, ins;
};
constexpr WeightLayout kLayouts[] = {WeightLayout::kOutIn, WeightLayout::kInOut};
std::vector<std::int64_t> weight_shape(WeightLayout layout, std::int64_t outs, std::int64_t ins) {
  return layout == WeightLayout::kOutIn ? std::vector{outs, ins} : std::vector{ins, outs};
}
const Extents kMatmulShapes[] = {{1, 1, 1}, {2, 3, 5}, {17, 33, 7}, {64, 48, 16}, {130, 67, 129}, {256, 96, 32}};

TEST_P(CpuCodeTest, LinearForward) {
  Random random(101);
  for (const auto& [rows, outs, ins] : kMatmulShapes) {
    for (const WeightLayout layout : kLayouts) {
      SCOPED_TRACE(::testing::Message() << rows << " x " << outs << " x " << ins << ", layout "
                                        << static_cast<int>(layout));
      const Operand x = operand({rows, ins}, random.normal(rows * ins));
      const Operand weight = operand(weight_shape(layout, outs, ins), random.normal(outs * ins));
      const Operand bias = operand({outs}, random.normal(outs));
      expect_as_in_double(code(), {output({rows, outs}), x, weight, bias}, {0}, [layout](const Tensors& t) {
        return LinearForward{t[0], t[1], t[2], t[3], layout};
      });
      expect_as_in_double(code(), {output({rows, outs}), x, weight}, {0}, [layout](const Tensors& t) {
        return LinearForward{t[0], t[1], t[2], Tensor(), layout};
      });
    }
  }
}

TEST_P(CpuCodeTest, LinearBackward) {
  Random random(102);
  for (const auto& [rows, outs, ins] : kMatmulShapes) {
    for (const WeightLayout layout : kLayouts) {
      SCOPED_TRACE(::testing::Message() << rows << " x " << outs << " x " << ins << ", layout "
                                        << static_cast<int>(layout));
      const auto weights = weight_shape(layout, outs, ins);
      const Operand dy = operand({rows, outs}, random.normal(rows * outs));
      const Operand x = operand({rows, ins}, random.normal(rows * ins));
      const Operand weight = operand(weights, random.normal(outs * ins));
      const Operand old_dweight = operand(weights, random.normal(outs * ins));
      const Operand old_dbias = operand({outs}, random.normal(outs));
      expect_as_in_double(code(), {output(weights), output({outs}), dy, x}, {0, 1}, [layout](const Tensors& t) {
        return LinearBackwardWeight{t[0], t[1], t[2], t[3], Accumulate::kOverwrite, layout};
      });
      expect_as_in_double(code(), {old_dweight, old_dbias, dy, x}, {0, 1}, [layout](const Tensors& t) {
        return LinearBackwardWeight{t[0], t[1], t[2], t[3], Accumulate::kAdd, layout};
      });
      expect_as_in_double(code(), {output({rows, ins}), dy, weight}, {0}, [layout](const Tensors& t) {
        return LinearBackwardInput{t[0], t[1], t[2], layout};
      });
    }
  }
}

// What a product takes along is what the operations make one behind the other, bit for bit.
TEST_P(CpuCodeTest, ProductsWithGelu) {
  Random random(117);
  for (const auto& [rows, outs, ins] : kMatmulShapes) {
    for (const WeightLayout layout : kLayouts) {
      SCOPED_TRACE(::testing::Message() << rows << " x " << outs << " x " << ins << ", layout "
                                        << static_cast<int>(layout));
      const Operand x = operand({rows, ins}, random.normal(rows * ins));
      const Operand weight = operand(weight_shape(layout, outs, ins), random.normal(outs * ins));
      const Operand bias = operand({outs}, random.normal(outs));
      const Results forward =
          run(code(), DType::kF32, {output({rows, outs}), output({rows, outs}), x, weight, bias},
              [layout](const Tensors& t) { return LinearForward{t[0], t[2], t[3], t[4], layout, t[1]}; });
      const auto y = run(code(), DType::kF32, {output({rows, outs}), x, weight, bias}, [layout](const Tensors& t) {
        return LinearForward{t[0], t[1], t[2], t[3], layout};
      })[0];
      const auto activated =
          run(code(), DType::kF32, {output({rows, outs}), operand({rows, outs}, y)}, [](const Tensors& t) {
            return GeluForward{t[0], t[1]};
          })[0];
      EXPECT_TRUE(equal_bits(forward[0], y));
      EXPECT_TRUE(equal_bits(forward[1], activated));

      const Operand dy = operand({rows, outs}, random.normal(rows * outs));
      const Operand old_dbias = operand({ins}, random.normal(ins));
      const auto product = run(code(), DType::kF32, {output({rows, ins}), dy, weight}, [layout](const Tensors& t) {
        return LinearBackwardInput{t[0], t[1], t[2], layout};
      })[0];
      for (const Accumulate accumulate : {Accumulate::kOverwrite, Accumulate::kAdd}) {
        const Operand dbias = accumulate == Accumulate::kAdd ? old_dbias : output({ins});
        const Results backward = run(
            code(), DType::kF32, {output({rows, ins}), dbias, dy, weight, x},
            [&](const Tensors& t) { return LinearBackwardInput{t[0], t[2], t[3], layout, t[4], t[1], accumulate}; });
        const Results apart = run(code(), DType::kF32, {output({rows, ins}), dbias, operand({rows, ins}, product), x},
                                  [&](const Tensors& t) {
                                    return GeluBackward{t[0], t[2], t[3], t[1], accumulate};
                                  });
        EXPECT_TRUE(equal_bits(backward[0], apart[0]));
        EXPECT_TRUE(equal_bits(backward[1], apart[1]));
      }
    }
  }
}

std::vector<double> transposed(const std::vector<double>& values, std::int64_t rows, std::int64_t columns) {
  std::vector<double> out;
  for (std::int64_t c = 0; c < columns; ++c) {
    for (std::int64_t r = 0; r < rows; ++r) out.push_back(values[static_cast<std::size_t>(r * columns + c)]);
  }
  return out;
}

// In small integers, where every order of addition is exact.
TEST_P(CpuCodeTest, LayoutsOfAWeightAreTransposes) {
  Random random(113);
  const std::int64_t rows = 21, outs = 37, ins = 10;
  const Operand x = operand({rows, ins}, random.small_integers(rows * ins));
  const Operand dy = operand({rows, outs}, random.small_integers(rows * outs));
  const Operand bias = operand({outs}, random.small_integers(outs));
  const Operand weight = operand({outs, ins}, random.small_integers(outs * ins));
  const Operand old = operand({outs, ins}, random.small_integers(outs * ins));
  const auto stored = [&](const Operand& as, WeightLayout layout) {
    return layout == WeightLayout::kOutIn ? as : operand({ins, outs}, transposed(as.values, outs, ins));
  };
  std::vector<std::vector<double>> results[2];  // of each layout: y, dx, dweight, dweight added to
  for (const WeightLayout layout : kLayouts) {
    const auto product = [&](const std::vector<Operand>& operands, const auto& make) {
      results[static_cast<int>(layout)].push_back(run(code(), DType::kF32, operands, make)[0]);
    };
    product({output({rows, outs}), x, stored(weight, layout), bias}, [&](const Tensors& t) {
      return LinearForward{t[0], t[1], t[2], t[3], layout};
    });
    product({output({rows, ins}), dy, stored(weight, layout)}, [&](const Tensors& t) {
      return LinearBackwardInput{t[0], t[1], t[2], layout};
    });
    product({output(weight_shape(layout, outs, ins)), dy, x}, [&](const Tensors& t) {
      return LinearBackwardWeight{t[0], Tensor(), t[1], t[2], Accumulate::kOverwrite, layout};
    });
    product({stored(old, layout), dy, x}, [&](const Tensors& t) {
      return LinearBackwardWeight{t[0], Tensor(), t[1], t[2], Accumulate::kAdd, layout};
    });
  }
  EXPECT_EQ(results[1][0], results[0][0]);
  EXPECT_EQ(results[1][1], results[0][1]);
  EXPECT_EQ(results[1][2], transposed(results[0][2], outs, ins));
  EXPECT_EQ(results[1][3], transposed(results[0][3], outs, ins));
}

// Sums of small integers are exact, so that adding to a gradient is overwriting and then adding, bit for bit.
TEST_P(CpuCodeTest, LinearBackwardAddsToWhatIsThere) {
  Random random(103);
  const std::int64_t rows = 70, outs = 37, ins = 45;
  const Operand dy = operand({rows, outs}, random.small_integers(rows * outs));
  const Operand x = operand({rows, ins}, random.small_integers(rows * ins));
  const Operand old = operand({outs, ins}, random.small_integers(outs * ins));
  const auto dweight = [&](const Operand& before, Accumulate accumulate) {
    return run(code(), DType::kF32, {before, dy, x}, [&](const Tensors& t) {
      return LinearBackwardWeight{t[0], Tensor(), t[1], t[2], accumulate};
    })[0];
  };
  const auto fresh = dweight(output({outs, ins}), Accumulate::kOverwrite), added = dweight(old, Accumulate::kAdd);
  for (std::size_t i = 0; i < added.size(); ++i) EXPECT_EQ(added[i], fresh[i] + old.values[i]);
}

const std::array<std::int64_t, 2> kRowShapes[] = {{1, 1}, {3, 7}, {5, 16}, {9, 64}, {23, 100}, {8, 129}, {64, 256}};

// Who makes the gradient of a bias makes the same bits: `sums` are those of a product's backward.
void expect_sums_of_a_product(CpuCode code, const std::vector<double>& sums, const Operand& dy, const Operand& old_sums,
                              Accumulate accumulate) {
  const bool add = accumulate == Accumulate::kAdd;
  const Operand ones = operand({dy.shape[0], 1}, std::vector<double>(static_cast<std::size_t>(dy.shape[0]), 1));
  const Operand zeros = operand({dy.shape[1], 1}, std::vector<double>(static_cast<std::size_t>(dy.shape[1]), 0));
  const Results product =
      run(code, DType::kF32, {zeros, add ? old_sums : output({dy.shape[1]}), dy, ones}, [accumulate](const Tensors& t) {
        return LinearBackwardWeight{t[0], t[1], t[2], t[3], accumulate};
      });
  EXPECT_TRUE(equal_bits(sums, product[1]));
}

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
    for (const double epsilon : {1e-6, 1e-2}) {
      const Results normed = expect_as_in_double(
          code(), {output({rows, channels}), output({rows}), output({rows}), x, weight, bias}, {0, 1, 2},
          [epsilon](const Tensors& t) { return LayerNormForward{t[0], t[1], t[2], t[3], t[4], t[5], epsilon}; });
      for (std::int64_t r = 0; r < rows; ++r) {
        double variance = 0;
        for (std::int64_t c = 0; c < channels; ++c) {
          const double centred =
              x.values[static_cast<std::size_t>(r * channels + c)] - normed[1][static_cast<std::size_t>(r)];
          variance += centred * centred / static_cast<double>(channels);
        }
        const double rstd = 1 / std::sqrt(variance + epsilon);
        EXPECT_NEAR(normed[2][static_cast<std::size_t>(r)], rstd, 1e-5 * rstd);
      }
      expect_as_in_double(
          code(),
          {output({rows, channels}), output({rows, channels}), output({rows}), output({rows}), x, delta, weight, bias},
          {0, 1, 2, 3}, [epsilon](const Tensors& t) {
            return ResidualLayerNormForward{t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], epsilon};
          });
    }
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
    const Operand old_sums = operand({channels}, random.normal(channels));
    for (const Accumulate accumulate : {Accumulate::kOverwrite, Accumulate::kAdd}) {
      const bool add = accumulate == Accumulate::kAdd;
      expect_as_in_double(code(),
                          {old_dx, add ? old_dweight : output({channels}), add ? old_dbias : output({channels}), dy,
                           x_out, mean, rstd, weight},
                          {0, 1, 2}, [accumulate](const Tensors& t) {
                            return LayerNormBackward{t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], accumulate};
                          });
      for (const Accumulate to_dx : {Accumulate::kOverwrite, Accumulate::kAdd}) {
        const Results out = expect_as_in_double(
            code(),
            {to_dx == Accumulate::kAdd ? old_dx : output({rows, channels}), add ? old_dweight : output({channels}),
             add ? old_dbias : output({channels}), dy, x_out, mean, rstd, weight, add ? old_sums : output({channels})},
            {0, 1, 2, 8}, [&](const Tensors& t) {
              return LayerNormBackward{t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], accumulate, to_dx, t[8]};
            });
        expect_sums_of_a_product(code(), out[8], operand({rows, channels}, out[0]), old_sums, accumulate);
      }
    }
  }
}

Results gelu(CpuCode code, DType dtype, const Operand& x) {
  return run(code, dtype, {output(x.shape), x}, [](const Tensors& t) { return GeluForward{t[0], t[1]}; });
}

TEST_P(CpuCodeTest, Gelu) {
  Random random(107);
  for (const std::int64_t elems : {1, 15, 16, 17, 1000}) {
    SCOPED_TRACE(elems);
    Operand x = operand({elems}, random.normal(elems, 3));
    x.values[0] = -30;  // far out, where the exponential is cut off
    const Operand dy = operand({elems}, random.normal(elems));
    expect_as_in_double(code(), {output({elems}), x}, {0}, [](const Tensors& t) { return GeluForward{t[0], t[1]}; });
    const Results backward = expect_as_in_double(code(), {output({elems}), dy, x}, {0}, [](const Tensors& t) {
      return GeluBackward{t[0], t[1], t[2]};
    });
    const Results in_place = run(code(), DType::kF32, {dy, x}, [](const Tensors& t) {
      return GeluBackward{t[0], t[0], t[1]};
    });
    EXPECT_TRUE(equal_bits(in_place[0], backward[0]));
  }
}

TEST_P(CpuCodeTest, GeluBackwardWithTheGradientOfABias) {
  Random random(32);
  const std::int64_t rows = 3000, columns = 21;  // several pieces, the last one shorter
  const Operand dy = operand({rows, columns}, random.normal(rows * columns));
  const Operand x = operand({rows, columns}, random.normal(rows * columns));
  const Operand before = operand({columns}, random.normal(columns));
  const Results alone = run(code(), DType::kF32, {output({rows, columns}), dy, x}, [](const Tensors& t) {
    return GeluBackward{t[0], t[1], t[2]};
  });
  for (const Accumulate accumulate : {Accumulate::kOverwrite, Accumulate::kAdd}) {
    const auto results = run(code(), DType::kF32, {output({rows, columns}), dy, x, before}, [&](const Tensors& t) {
      return GeluBackward{t[0], t[1], t[2], t[3], accumulate};
    });
    EXPECT_TRUE(equal_bits(results[0], alone[0]));
    for (std::int64_t column = 0; column < columns; ++column) {
      double sum = accumulate == Accumulate::kAdd ? before.values[static_cast<std::size_t>(column)] : 0;
      for (std::int64_t row = 0; row < rows; ++row) sum += alone[0][static_cast<std::size_t>(row * columns + column)];
      EXPECT_NEAR(results[3][static_cast<std::size_t>(column)], sum, 1e-3) << column;
    }
  }
}

// 1 / (1 + e^-z) over the whole range pins the exponential: z runs past where it is cut off on both sides.
TEST_P(CpuCodeTest, GeluIsAccurateElementByElement) {
  std::vector<float> x;
  for (float value = -5.0f; value <= 12.0f; value += 0.001f) x.push_back(value);
  const Operand values = operand({static_cast<std::int64_t>(x.size())}, x);
  const auto y = gelu(code(), DType::kF32, values)[0], ref = gelu(CpuCode{}, DType::kF64, values)[0];
  for (std::size_t i = 0; i < x.size(); ++i) {
    // The f32 reference cancels in 1 + tanh for negative x; the vector code does not.
    ASSERT_NEAR(y[i], ref[i], 1e-6 * std::max(std::abs(ref[i]), 0.5)) << "at " << x[i];
  }
}

TEST_P(CpuCodeTest, NotANumberPassesThrough) {
  std::vector<float> x(33, 0.5f);
  x[20] = std::nanf("");
  const auto y = gelu(code(), DType::kF32, operand({33}, x))[0];
  EXPECT_TRUE(std::isnan(y[20]));
  EXPECT_FALSE(std::isnan(y[21]));
  const Results loss =
      run(code(), DType::kF32, {operand({1, 33}, x), output({1}), tokens({1}, {0})}, [](const Tensors& t) {
        return CrossEntropyForwardBackward{t[0], t[1], t[2], 33, 1};
      });
  EXPECT_TRUE(std::isnan(loss[1][0]));
}

TEST_P(CpuCodeTest, Add) {
  Random random(108);
  for (const std::int64_t elems : {1, 16, 37}) {
    const auto a = random.normal(elems), b = random.normal(elems);
    const Results out = expect_as_in_double(code(), {output({elems}), operand({elems}, a), operand({elems}, b)}, {0},
                                            [](const Tensors& t) {
                                              return Add{t[0], t[1], t[2]};
                                            });
    for (std::size_t i = 0; i < a.size(); ++i) EXPECT_EQ(static_cast<float>(out[0][i]), a[i] + b[i]);
    const Results in_place = run(code(), DType::kF32, {operand({elems}, a), operand({elems}, b)}, [](const Tensors& t) {
      return Add{t[0], t[0], t[1]};
    });
    EXPECT_TRUE(equal_bits(in_place[0], out[0]));
  }
}

TEST_P(CpuCodeTest, CrossEntropy) {
  Random random(109);
  const std::int64_t rows = 9;
  for (const auto& [vocab, columns] :
       {std::pair<std::int64_t, std::int64_t>{1, 1}, {5, 8}, {61, 64}, {256, 256}, {257, 300}}) {
    SCOPED_TRACE(::testing::Message() << vocab << " of " << columns);
    const Operand logits = operand({rows, columns}, random.normal(rows * columns, 4));
    const Operand targets = tokens({rows}, random.tokens(rows, vocab));
    const Results both =
        expect_as_in_double(code(), {logits, output({rows}), targets}, {0, 1}, [vocab = vocab](const Tensors& t) {
          return CrossEntropyForwardBackward{t[0], t[1], t[2], vocab, 0.25};
        });
    const Results alone =
        expect_as_in_double(code(), {output({rows}), logits, targets}, {0}, [vocab = vocab](const Tensors& t) {
          return CrossEntropyForward{t[0], t[1], t[2], vocab};
        });
    EXPECT_TRUE(equal_bits(both[1], alone[0]));
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t v = vocab; v < columns; ++v) EXPECT_EQ(both[0][static_cast<std::size_t>(r * columns + v)], 0);
    }
  }
}

TEST_P(CpuCodeTest, SquareSumsHaveTheReferencesBits) {
  Random random(110);
  for (const std::int64_t elems : {0, 1, 15, 16, 17, 512, 1000, 32768}) {
    auto gradients = random.normal(elems + 1);
    // Magnitudes far apart, so that another order of addition gives other bits.
    for (float& value : gradients) value *= std::exp2(static_cast<float>(random.integer(-16, 16)));
    const FlatSegment segments[] = {{0, elems, true}};
    const std::vector<Operand> operands = {{.shape = {norm_blocks(segments)}, .role = Operand::Role::kSum},
                                           operand({elems + 1}, gradients)};
    const auto sums = [&](const Tensors& t) { return SquareSums{t[0], t[1], segments}; };
    const Results ref = run(CpuCode{}, DType::kF32, operands, sums);
    for (const std::int64_t shift : {0, 3}) {
      const Results out = run(code(), DType::kF32, operands, sums, shift);
      EXPECT_TRUE(equal_bits(out[0], ref[0])) << elems << " elements";
    }
    // And the squares of floats are exact in double.
    EXPECT_TRUE(equal_bits(run(CpuCode{}, DType::kF64, operands, sums)[0], ref[0]));
  }
}

TEST_P(CpuCodeTest, AdamW) {
  Random random(111);
  const AdamWOptions usual = {.beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8, .weight_decay = 0.1};
  const AdamWOptions slow = {.beta1 = 0.999999, .beta2 = 0.999999, .epsilon = 1e-8, .weight_decay = 0.1};
  const auto scalars = [](const AdamWOptions& options, std::int64_t step) {
    const AdamWScalars values = adamw_scalars(options, 3e-2, step);
    return Operand{.shape = {3}, .values = {values.begin(), values.end()}, .role = Operand::Role::kSum};
  };
  for (const std::int64_t elems : {1, 16, 77}) {
    Operand v = operand({elems}, random.normal(elems, 0.1));
    for (double& value : v.values) value = static_cast<float>(value * value);
    const Operand weights = operand({elems}, random.normal(elems)), m = operand({elems}, random.normal(elems, 0.1));
    const Operand g = operand({elems}, random.normal(elems)), clip = operand({1}, std::vector<float>{0.5f});
    const Operand zeros = operand({elems}, std::vector<float>(static_cast<std::size_t>(elems)));
    for (const bool decay : {false, true}) {
      const FlatSegment segments[] = {{0, elems, decay}};
      expect_as_in_double(code(), {weights, m, v, g, clip, scalars(usual, 5)}, {0, 1, 2},
                          [&](const Tensors& t) { return AdamW{t[0], t[1], t[2], t[3], t[4], t[5], segments, usual}; });
      // From moments of zero the factor 1 - beta is all that counts, and in float it is 1.3 % off here.
      expect_as_in_double(code(), {weights, zeros, zeros, g, clip, scalars(slow, 1)}, {0, 1, 2},
                          [&](const Tensors& t) { return AdamW{t[0], t[1], t[2], t[3], t[4], t[5], segments, slow}; });
    }
  }
}

TEST_P(CpuCodeTest, FingerprintHasTheReferencesBits) {
  Random random(112);
  const auto device = make_cpu_device();
  Arena arena("bytes", MemoryKind::kDevice);
  const Tensor whole = Tensor::reserve(arena, DType::kU8, {8192});
  const Tensor out = Tensor::reserve(arena, DType::kI64, {1});
  arena.allocate(*device);
  std::byte* const bytes = strake::cpu::bytes(whole);
  const auto print = [&](CpuCode with, std::int64_t size_bytes, std::int64_t shift) {
    Fingerprint{out, whole.flat(shift, size_bytes)}.on_cpu(with)({});
    return static_cast<std::uint64_t>(strake::cpu::data<std::int64_t>(out)[0]);
  };
  for (std::int64_t i = 0; i < 8192; ++i) bytes[i] = static_cast<std::byte>(random.integer(0, 255));
  for (const std::int64_t size_bytes : {0, 1, 7, 8, 9, 16, 31, 63, 64, 65, 127, 1000, 4096, 4103}) {
    for (const std::int64_t shift : {0, 3}) {
      EXPECT_EQ(print(code(), size_bytes, shift), print(CpuCode{}, size_bytes, shift))
          << size_bytes << " bytes, " << shift << " behind";
    }
  }
  // The first number of SplitMix64 from seed 1, and what a ninth byte adds.
  const std::byte nine[9] = {std::byte{1}, {}, {}, {}, {}, {}, {}, {}, std::byte{0xff}};
  std::copy(std::begin(nine), std::end(nine), bytes);
  EXPECT_EQ(print(code(), 8, 0), 0x910a2dec89025cc1u);
  EXPECT_EQ(print(code(), 9, 0), 0x808ee794b52ee9d6u);
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
    const Operand old_sums = operand({channels}, random.normal(channels));
    for (const Accumulate accumulate : {Accumulate::kOverwrite, Accumulate::kAdd}) {
      const bool add = accumulate == Accumulate::kAdd;
      expect_as_in_double(
          code(), {old_dx, add ? old_dweight : output({channels}), dy, x_out, rstd, weight}, {0, 1},
          [accumulate](const Tensors& t) { return RmsNormBackward{t[0], t[1], t[2], t[3], t[4], t[5], accumulate}; });
      for (const Accumulate to_dx : {Accumulate::kOverwrite, Accumulate::kAdd}) {
        // Of one channel nothing but rounding is left of dx.
        if (to_dx == Accumulate::kOverwrite && channels == 1) continue;
        const Results out = expect_as_in_double(
            code(),
            {to_dx == Accumulate::kAdd ? old_dx : output({rows, channels}), add ? old_dweight : output({channels}), dy,
             x_out, rstd, weight, add ? old_sums : output({channels})},
            {0, 1, 6}, [&](const Tensors& t) {
              return RmsNormBackward{t[0], t[1], t[2], t[3], t[4], t[5], accumulate, to_dx, t[6]};
            });
        expect_sums_of_a_product(code(), out[6], operand({rows, channels}, out[0]), old_sums, accumulate);
      }
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
