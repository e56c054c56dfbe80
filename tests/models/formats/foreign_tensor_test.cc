#include "models/formats/foreign_tensor.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

namespace strake::models {
namespace {

using Floats = std::vector<float>;

ParamSpec parameter(std::vector<std::int64_t> shape, InitialValue initial = {}) {
  return {.name = "h.0.w", .global_shape = std::move(shape), .initial = std::move(initial)};
}

ForeignTensor foreign(std::vector<std::int64_t> shape, std::int64_t first_row = 0, bool in_out = false) {
  return {.name = "w", .shape = std::move(shape), .param = ParamId{0}, .first_row = first_row, .in_out = in_out};
}

// theirs = 1, 2, ...; ours starts as -1.
Floats taken(const ForeignTensor& tensor, const ParamSpec& spec) {
  Floats theirs(static_cast<std::size_t>(tensor.elems())), ours(static_cast<std::size_t>(spec.elems()), -1);
  std::iota(theirs.begin(), theirs.end(), 1.0f);
  copy_from(tensor, spec, theirs, ours);
  Floats back(theirs.size());
  copy_to(tensor, spec, ours, back);
  EXPECT_EQ(back, theirs);
  return ours;
}

TEST(ForeignTensor, EachOrientationIntoEach) {
  const ParamSpec straight = parameter({2, 3}), transposed = parameter({3, 2}, {.transposed = true});
  EXPECT_EQ(taken(foreign({2, 3}), straight), (Floats{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(taken(foreign({3, 2}, 0, true), straight), (Floats{1, 3, 5, 2, 4, 6}));
  EXPECT_EQ(taken(foreign({2, 3}), transposed), (Floats{1, 4, 2, 5, 3, 6}));
  EXPECT_EQ(taken(foreign({3, 2}, 0, true), transposed), (Floats{1, 2, 3, 4, 5, 6}));
}

// Two groups of two rows of part 0 and one of part 1, one column.
TEST(ForeignTensor, RowsByGroup) {
  const ParamSpec grouped = parameter({6, 1}, {.group_rows = {2, 1}});
  EXPECT_EQ(rows_of_part(grouped, 0).first, 0);
  EXPECT_EQ(rows_of_part(grouped, 0).rows, 4);
  EXPECT_EQ(rows_of_part(grouped, 1).first, 4);
  EXPECT_EQ(rows_of_part(grouped, 1).rows, 2);
  EXPECT_EQ(taken(foreign({6, 1}), grouped), (Floats{1, 2, 5, 3, 4, 6}));
  EXPECT_EQ(taken(foreign({1, 6}, 0, true), grouped), (Floats{1, 2, 5, 3, 4, 6}));
  EXPECT_EQ(taken(foreign({4, 1}, 0), grouped), (Floats{1, 2, -1, 3, 4, -1}));
  EXPECT_EQ(taken(foreign({2, 1}, 4), grouped), (Floats{-1, -1, 1, -1, -1, 2}));
  EXPECT_EQ(taken(foreign({2}, 4), parameter({6}, {.group_rows = {2, 1}})), (Floats{-1, -1, 1, -1, -1, 2}));
}

TEST(ForeignTensor, GroupsAndOrientationAtOnce) {
  const ParamSpec alternating = parameter({4, 2}, {.group_rows = {1, 1}});
  EXPECT_EQ(taken(foreign({4, 2}), alternating), (Floats{1, 2, 5, 6, 3, 4, 7, 8}));
  EXPECT_EQ(taken(foreign({2, 2}, 2), alternating), (Floats{-1, -1, 1, 2, -1, -1, 3, 4}));
  EXPECT_EQ(taken(foreign({2, 2}, 2, true), alternating), (Floats{-1, -1, 1, 3, -1, -1, 2, 4}));
}

TEST(ForeignTensor, PaddingStaysAsItIs) {
  EXPECT_EQ(taken(foreign({2, 2}), parameter({4, 2})), (Floats{1, 2, 3, 4, -1, -1, -1, -1}));
}

TEST(ForeignTensor, LargeOnesToo) {
  const ParamSpec spec = parameter({70, 45}, {.transposed = true});
  const Floats ours = taken(foreign({45, 70}), spec);
  for (std::size_t in = 0; in < 70; ++in) {
    for (std::size_t out = 0; out < 45; ++out) ASSERT_EQ(ours[in * 45 + out], static_cast<float>(out * 70 + in + 1));
  }
}

}  // namespace
}  // namespace strake::models
