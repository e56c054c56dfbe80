// What the rotary embedding means: its frequencies, which channels turn and where heads go.
#include "kernels/rotary.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/kernels/operands.h"

namespace strake::kernels {
namespace {

using namespace strake::kernels::testing;
using enum QkvLayout::Order;

TEST(Rotary, FrequenciesArePowersOfTheta) {
  const std::vector<double> frequencies = rotary_frequencies(8, 10000);
  ASSERT_EQ(frequencies.size(), 4u);
  for (std::size_t i = 0; i < 4; ++i) EXPECT_NEAR(frequencies[i], std::pow(10.0, -static_cast<double>(i)), 1e-15);
}

// Those of Llama 3.2 1B and of Llama 3.1 8B, by the formulas of Hugging Face's modeling_rope_utils.py in double: short
// waves as they are, long ones slower by the factor, between them both in part.
TEST(Rotary, FrequenciesScaleAsLlama3Does) {
  const struct {
    std::int64_t head_size;
    RotaryScaling scaling;
    std::vector<std::pair<std::size_t, double>> expected;
  } models[] = {
      {64,
       {32, 1, 4, 8192},
       {{0, 1.0},
        {1, 0.6636012376960885},
        {14, 0.0032114459947525913},
        {15, 0.001290547928209264},
        {16, 0.00042955679655935816},
        {17, 9.70828780262767e-05},
        {18, 1.9461638184831125e-05},
        {31, 9.418306725434909e-08}}},
      {128,
       {8, 1, 4, 8192},
       {{0, 1.0},
        {1, 0.8146172338565447},
        {29, 0.002166570763503359},
        {30, 0.0013718935677611381},
        {32, 0.0005248461609929547},
        {35, 9.556212353964683e-05},
        {63, 3.068925988914511e-07}}},
  };
  for (const auto& model : models) {
    const std::vector<double> frequencies = rotary_frequencies(model.head_size, 500000, model.scaling);
    for (const auto& [i, expected] : model.expected) EXPECT_NEAR(frequencies[i], expected, 1e-12 * expected) << i;
  }
}

// A pair is a channel and the one half a head behind it; the same head at another place turns by another angle.
TEST(Rotary, TurnsAChannelWithTheOneHalfAHeadBehind) {
  const QkvLayout layout{1, 1, 4};
  const std::vector<double> head = {1, 0, 0, 2}, frequencies = {0.5, 0.25};
  std::vector<double> x;
  for (int token = 0; token < 3; ++token) {
    for (int part = 0; part < 3; ++part) x.insert(x.end(), head.begin(), head.end());
  }
  const Results out = in_double({output({1, 3, 12}), operand({1, 3, 12}, x)}, [&](const auto& t) {
    return RotaryForward{t[0], t[1], layout, layout, frequencies};
  });
  for (std::size_t t = 0; t < 3; ++t) {
    const double a = 0.5 * static_cast<double>(t), b = 0.25 * static_cast<double>(t);
    const std::vector<double> turned = {std::cos(a), -2 * std::sin(b), std::sin(a), 2 * std::cos(b)};
    for (std::size_t i = 0; i < 12; ++i) {
      EXPECT_NEAR(out[0][t * 12 + i], i < 8 ? turned[i % 4] : head[i % 4], 1e-15) << "token " << t << ", " << i;
    }
  }
}

// Every sequence of a batch begins at position 0, and the last position of a long one is as exact as the first.
TEST(Rotary, PositionsCountFromTheBeginOfASequence) {
  const QkvLayout layout{1, 1, 2};
  const std::int64_t length = 4096;
  std::vector<double> x;
  for (std::int64_t token = 0; token < 2 * length; ++token) x.insert(x.end(), {1, 0, 1, 0, 1, 0});
  for (const CpuCode code : CpuCode::all()) {
    const Results out =
        run(code, DType::kF32, {output({2, length, 6}), operand({2, length, 6}, x)}, [&](const auto& t) {
          return RotaryForward{t[0], t[1], layout, layout, {0.7}};
        });
    for (std::int64_t token = 0; token < 2 * length; ++token) {
      const double angle = 0.7 * static_cast<double>(token % length);
      ASSERT_NEAR(out[0][static_cast<std::size_t>(token * 6)], std::cos(angle), 1e-7) << code.name() << ", " << token;
      ASSERT_NEAR(out[0][static_cast<std::size_t>(token * 6 + 3)], std::sin(angle), 1e-7) << code.name();
    }
  }
}

// Without frequencies heads only move. By group: q0 q1 k0 v0, q2 q3 k1 v1.
TEST(Rotary, MovesHeadsBetweenLayouts) {
  const QkvLayout by_group{4, 2, 2, kByGroup}, by_kind{4, 2, 2, kByKind};
  const std::vector<double> grouped = {0, 1, 2, 3, 8, 9, 12, 13, 4, 5, 6, 7, 10, 11, 14, 15};
  std::vector<double> counted(16);
  for (std::size_t i = 0; i < 16; ++i) counted[i] = static_cast<double>(i);
  EXPECT_EQ(in_double({output({1, 1, 16}), operand({1, 1, 16}, grouped)},
                      [&](const auto& t) {
                        return RotaryForward{t[0], t[1], by_kind, by_group, {}};
                      })[0],
            counted);
  EXPECT_EQ(in_double({output({1, 1, 16}), operand({1, 1, 16}, counted)},
                      [&](const auto& t) {
                        return RotaryBackward{t[0], t[1], by_group, by_kind, {}};
                      })[0],
            grouped);
}

// The views name the heads that begin() names.
TEST(QkvLayout, ViewsBeginWhereHeadsDo) {
  Arena arena("test", MemoryKind::kDevice);
  for (const QkvLayout& layout :
       {QkvLayout{4, 2, 6, kByKind}, QkvLayout{3, 3, 6, kByKind}, QkvLayout{3, 3, 6, kByGroup}}) {
    const Tensor packed = Tensor::reserve(arena, DType::kF32, {2, 5, layout.row_elems()});
    const auto views = layout.views(packed);
    const std::pair<Tensor, std::int64_t> parts[] = {
        {views.q, 0}, {views.k, layout.heads}, {views.v, layout.heads + layout.kv_heads}};
    for (const auto& [view, first] : parts) {
      for (std::int64_t head = 0; head < view.size(2); ++head) {
        EXPECT_EQ(view.slice(2, head, 1).slice(0, 1, 1).slice(1, 3, 1).offset_bytes() - packed.offset_bytes(),
                  4 * static_cast<std::size_t>(8 * layout.row_elems() + layout.begin(first + head)));
      }
    }
  }
  EXPECT_FALSE((QkvLayout{4, 2, 6, kByGroup}.has_views()));
}

}  // namespace
}  // namespace strake::kernels
