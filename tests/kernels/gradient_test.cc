// The backward of every kernel against central differences of its forward, in double.
#include <gtest/gtest.h>

#include <functional>
#include <numeric>

#include "kernels/attention.h"
#include "kernels/cross_entropy.h"
#include "kernels/elementwise.h"
#include "kernels/embedding.h"
#include "kernels/layer_norm.h"
#include "kernels/matmul.h"
#include "kernels/rms_norm.h"
#include "kernels/rotary.h"
#include "kernels/swiglu.h"
#include "tests/kernels/operands.h"

namespace strake::kernels {
namespace {

using namespace strake::kernels::testing;
using Values = std::vector<double>;

double dot(const Values& a, const Values& b) { return std::inner_product(a.begin(), a.end(), b.begin(), 0.0); }

// d function() / d at[i] for every i.
Values central_differences(Values& at, const std::function<double()>& function) {
  constexpr double kStep = 1e-5;
  Values slopes;
  for (double& value : at) {
    const double middle = value;
    value = middle + kStep;
    const double above = function();
    value = middle - kStep;
    const double below = function();
    value = middle;
    slopes.push_back((above - below) / (2 * kStep));
  }
  return slopes;
}

void expect_gradient(const Values& gradient, const Values& slopes) {
  ASSERT_EQ(gradient.size(), slopes.size());
  const double scale = std::sqrt(dot(slopes, slopes) / static_cast<double>(slopes.size()));
  ASSERT_GT(scale, 0);
  for (std::size_t i = 0; i < slopes.size(); ++i) EXPECT_NEAR(gradient[i], slopes[i], 1e-7 * std::max(scale, 1.0)) << i;
}

// Every row of `a` and `row`.
Values plus_row(Values a, const Values& row) {
  for (std::size_t i = 0; i < a.size(); ++i) a[i] += row[i % row.size()];
  return a;
}

TEST(Gradients, Linear) {
  Random random(201);
  const std::int64_t rows = 5, outs = 4, ins = 3;
  Values x = random.normal<double>(rows * ins), weight = random.normal<double>(outs * ins);
  Values bias = random.normal<double>(outs);
  const Values dy = random.normal<double>(rows * outs);
  const auto loss = [&] {
    return dot(
        in_double({output({rows, outs}), operand({rows, ins}, x), operand({outs, ins}, weight), operand({outs}, bias)},
                  [](const auto& t) {
                    return LinearForward{t[0], t[1], t[2], t[3]};
                  })[0],
        dy);
  };
  const Values dx =
      in_double({output({rows, ins}), operand({rows, outs}, dy), operand({outs, ins}, weight)}, [](const auto& t) {
        return LinearBackwardInput{t[0], t[1], t[2]};
      })[0];
  const Results gradients = in_double(
      {output({outs, ins}), output({outs}), operand({rows, outs}, dy), operand({rows, ins}, x)}, [](const auto& t) {
        return LinearBackwardWeight{t[0], t[1], t[2], t[3], Accumulate::kOverwrite};
      });
  expect_gradient(dx, central_differences(x, loss));
  expect_gradient(gradients[0], central_differences(weight, loss));
  expect_gradient(gradients[1], central_differences(bias, loss));
}

// An MLP: a product that takes GELU along, and the gradient that comes back through both.
TEST(Gradients, LinearWithGelu) {
  Random random(211);
  const std::int64_t rows = 5, ins = 3, inner = 6, outs = 4;
  const Values x = random.normal<double>(rows * ins), up = random.normal<double>(inner * ins),
               down = random.normal<double>(outs * inner), dy = random.normal<double>(rows * outs);
  Values bias = random.normal<double>(inner), added(static_cast<std::size_t>(rows * inner));
  const auto expanded = [&] {
    return in_double({output({rows, inner}), output({rows, inner}), operand({rows, ins}, x), operand({inner, ins}, up),
                      operand({inner}, bias)},
                     [](const auto& t) { return LinearForward{t[0], t[2], t[3], t[4], WeightLayout::kOutIn, t[1]}; });
  };
  const auto loss_of = [&](const Values& activated) {
    return dot(in_double({output({rows, outs}), operand({rows, inner}, activated), operand({outs, inner}, down)},
                         [](const auto& t) {
                           return LinearForward{t[0], t[1], t[2]};
                         })[0],
               dy);
  };
  const Results gradients =
      in_double({output({rows, inner}), output({inner}), operand({rows, outs}, dy), operand({outs, inner}, down),
                 operand({rows, inner}, expanded()[0])},
                [](const auto& t) { return LinearBackwardInput{t[0], t[2], t[3], WeightLayout::kOutIn, t[4], t[1]}; });
  expect_gradient(gradients[1], central_differences(bias, [&] { return loss_of(expanded()[1]); }));
  const Values before = expanded()[0];
  expect_gradient(gradients[0], central_differences(added, [&] {
                    const Values activated = in_double(
                        {output({rows, inner}), operand({rows, inner}, plus_row(before, added))}, [](const auto& t) {
                          return GeluForward{t[0], t[1]};
                        })[0];
                    return loss_of(activated);
                  }));
}

// With a key head to each query head, laid by group, and with shared ones.
TEST(Gradients, Attention) {
  Random random(202);
  const std::int64_t batch = 2, length = 5;
  for (const QkvLayout& layout : {QkvLayout{2, 2, 3, QkvLayout::Order::kByGroup}, QkvLayout{4, 2, 3}}) {
    SCOPED_TRACE(layout.kv_heads == layout.heads ? "own key heads" : "shared key heads");
    const std::vector<std::int64_t> packed = {batch, length, layout.row_elems()},
                                    plain = {batch, length, layout.heads * layout.head_size},
                                    of_rows = {batch, layout.heads, length};
    Values qkv = random.normal<double>(batch * length * layout.row_elems());
    const Values dout = random.normal<double>(batch * length * layout.heads * layout.head_size);
    const auto forward = [&] {
      return in_double({output(plain), output(of_rows), operand(packed, qkv)}, [&](const auto& t) {
        const auto [q, k, v] = layout.views(t[2]);
        return AttentionForward{t[0], t[1], q, k, v};
      });
    };
    const Results out = forward();
    const Results gradients = in_double(
        {output(packed), operand(plain, dout), operand(packed, qkv), operand(plain, out[0]), operand(of_rows, out[1])},
        [&](const auto& t) {
          const auto [dq, dk, dv] = layout.views(t[0]);
          const auto [q, k, v] = layout.views(t[2]);
          return AttentionBackward{dq, dk, dv, t[1], q, k, v, t[3], t[4], t[1]};
        });
    expect_gradient(gradients[0], central_differences(qkv, [&] { return dot(forward()[0], dout); }));
  }
}

TEST(Gradients, ResidualLayerNorm) {
  Random random(203);
  const std::int64_t rows = 3, channels = 7, elems = rows * channels;
  Values x = random.normal<double>(elems), delta = random.normal<double>(elems);
  Values weight = random.normal<double>(channels), bias = random.normal<double>(channels);
  Values added(static_cast<std::size_t>(channels));
  const Values dy = random.normal<double>(elems), dx_out = random.normal<double>(elems);
  const auto forward = [&] {
    return in_double(
        {output({rows, channels}), output({rows, channels}), output({rows}), output({rows}),
         operand({rows, channels}, x), operand({rows, channels}, plus_row(delta, added)), operand({channels}, weight),
         operand({channels}, bias)},
        [](const auto& t) { return ResidualLayerNormForward{t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7]}; });
  };
  const auto loss = [&] {
    const Results out = forward();
    return dot(out[1], dy) + dot(out[0], dx_out);
  };
  const Results out = forward();
  const Results gradients =
      in_double({operand({rows, channels}, dx_out), output({channels}), output({channels}),
                 operand({rows, channels}, dy), operand({rows, channels}, out[0]), operand({rows}, out[2]),
                 operand({rows}, out[3]), operand({channels}, weight)},
                [](const auto& t) {
                  return LayerNormBackward{t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], Accumulate::kOverwrite};
                });
  expect_gradient(gradients[0], central_differences(x, loss));
  expect_gradient(gradients[0], central_differences(delta, loss));
  expect_gradient(gradients[1], central_differences(weight, loss));
  expect_gradient(gradients[2], central_differences(bias, loss));
  // Of a norm that nothing else goes around, and of a bias of what is normed: the sums over its rows.
  const Results alone = in_double(
      {output({rows, channels}), output({channels}), output({channels}), operand({rows, channels}, dy),
       operand({rows, channels}, out[0]), operand({rows}, out[2]), operand({rows}, out[3]), operand({channels}, weight),
       output({channels})},
      [](const auto& t) {
        return LayerNormBackward{
            t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], Accumulate::kOverwrite, Accumulate::kOverwrite, t[8]};
      });
  const auto loss_alone = [&] { return dot(forward()[1], dy); };
  expect_gradient(alone[0], central_differences(delta, loss_alone));
  expect_gradient(alone[8], central_differences(added, loss_alone));
}

TEST(Gradients, Gelu) {
  Random random(204);
  Values x = random.normal<double>(40, 2);
  const Values dy = random.normal<double>(40);
  const auto loss = [&] {
    return dot(in_double({output({40}), operand({40}, x)},
                         [](const auto& t) {
                           return GeluForward{t[0], t[1]};
                         })[0],
               dy);
  };
  const Results gradients = in_double({output({40}), operand({40}, dy), operand({40}, x)}, [](const auto& t) {
    return GeluBackward{t[0], t[1], t[2]};
  });
  expect_gradient(gradients[0], central_differences(x, loss));
}

TEST(Gradients, Embedding) {
  Random random(205);
  const std::int64_t batch = 2, length = 3, channels = 4, vocab = 5, positions = 6;
  Values token_table = random.normal<double>(vocab * channels);
  Values position_table = random.normal<double>(positions * channels);
  const Operand ids = tokens({batch, length}, {4, 1, 1, 0, 4, 1});
  const Values dx = random.normal<double>(batch * length * channels);
  const auto loss = [&] {
    return dot(in_double({output({batch, length, channels}), ids, operand({vocab, channels}, token_table),
                          operand({positions, channels}, position_table)},
                         [](const auto& t) {
                           return EmbeddingForward{t[0], t[1], t[2], t[3]};
                         })[0],
               dx);
  };
  const Results gradients =
      in_double({output({vocab, channels}), output({positions, channels}), operand({batch, length, channels}, dx), ids},
                [](const auto& t) {
                  return EmbeddingBackward{t[0], Accumulate::kOverwrite, t[1], Accumulate::kOverwrite, t[2], t[3]};
                });
  expect_gradient(gradients[0], central_differences(token_table, loss));
  expect_gradient(gradients[1], central_differences(position_table, loss));
}

TEST(Gradients, CrossEntropy) {
  Random random(206);
  const std::int64_t rows = 4, vocab = 6, columns = 8;
  Values logits = random.normal<double>(rows * columns);
  const Operand targets = tokens({rows}, random.tokens(rows, vocab));
  const auto loss = [&] {
    const Values losses = in_double({output({rows}), operand({rows, columns}, logits), targets}, [](const auto& t) {
      return CrossEntropyForward{t[0], t[1], t[2], vocab};
    })[0];
    return 0.5 * std::accumulate(losses.begin(), losses.end(), 0.0);
  };
  const Results gradients = in_double({operand({rows, columns}, logits), output({rows}), targets}, [](const auto& t) {
    return CrossEntropyForwardBackward{t[0], t[1], t[2], vocab, 0.5};
  });
  expect_gradient(gradients[0], central_differences(logits, loss));
}

TEST(Gradients, ResidualRmsNorm) {
  Random random(207);
  const std::int64_t rows = 3, channels = 7, elems = rows * channels;
  Values x = random.normal<double>(elems), delta = random.normal<double>(elems);
  Values weight = random.normal<double>(channels), added(static_cast<std::size_t>(channels));
  const Values dy = random.normal<double>(elems), dx_out = random.normal<double>(elems);
  const auto forward = [&] {
    return in_double({output({rows, channels}), output({rows, channels}), output({rows}), operand({rows, channels}, x),
                      operand({rows, channels}, plus_row(delta, added)), operand({channels}, weight)},
                     [](const auto& t) { return ResidualRmsNormForward{t[0], t[1], t[2], t[3], t[4], t[5], 1e-2}; });
  };
  const auto loss = [&] {
    const Results out = forward();
    return dot(out[1], dy) + dot(out[0], dx_out);
  };
  const Results out = forward();
  const Results gradients = in_double(
      {operand({rows, channels}, dx_out), output({channels}), operand({rows, channels}, dy),
       operand({rows, channels}, out[0]), operand({rows}, out[2]), operand({channels}, weight)},
      [](const auto& t) { return RmsNormBackward{t[0], t[1], t[2], t[3], t[4], t[5], Accumulate::kOverwrite}; });
  expect_gradient(gradients[0], central_differences(x, loss));
  expect_gradient(gradients[0], central_differences(delta, loss));
  expect_gradient(gradients[1], central_differences(weight, loss));
  const Results alone = in_double(
      {output({rows, channels}), output({channels}), operand({rows, channels}, dy), operand({rows, channels}, out[0]),
       operand({rows}, out[2]), operand({channels}, weight), output({channels})},
      [](const auto& t) {
        return RmsNormBackward{t[0], t[1], t[2], t[3], t[4], t[5], Accumulate::kOverwrite, Accumulate::kOverwrite,
                               t[6]};
      });
  const auto loss_alone = [&] { return dot(forward()[1], dy); };
  expect_gradient(alone[0], central_differences(delta, loss_alone));
  expect_gradient(alone[6], central_differences(added, loss_alone));
}

TEST(Gradients, Rotary) {
  Random random(209);
  const QkvLayout from{4, 2, 6, QkvLayout::Order::kByGroup}, to{4, 2, 6};
  const std::vector<std::int64_t> shape = {2, 3, from.row_elems()};
  const std::vector<double> frequencies = rotary_frequencies(6, 100);
  Values x = random.normal<double>(2 * 3 * from.row_elems());
  const Values dy = random.normal<double>(2 * 3 * from.row_elems());
  const auto loss = [&] {
    return dot(in_double({output(shape), operand(shape, x)},
                         [&](const auto& t) {
                           return RotaryForward{t[0], t[1], to, from, frequencies};
                         })[0],
               dy);
  };
  const Results gradients = in_double({output(shape), operand(shape, dy)}, [&](const auto& t) {
    return RotaryBackward{t[0], t[1], from, to, frequencies};
  });
  expect_gradient(gradients[0], central_differences(x, loss));
}

TEST(Gradients, Swiglu) {
  Random random(208);
  Values x = random.normal<double>(40, 2);
  const Values dy = random.normal<double>(20);
  const auto loss = [&] {
    return dot(in_double({output({4, 5}), operand({4, 10}, x)},
                         [](const auto& t) {
                           return SwigluForward{t[0], t[1]};
                         })[0],
               dy);
  };
  const Results gradients = in_double({output({4, 10}), operand({4, 5}, dy), operand({4, 10}, x)}, [](const auto& t) {
    return SwigluBackward{t[0], t[1], t[2]};
  });
  expect_gradient(gradients[0], central_differences(x, loss));
}

}  // namespace
}  // namespace strake::kernels
