#include "models/formats/foreign_tensor.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "models/initialize.h"
#include "runtime/base/check.h"

namespace strake::models {
namespace {

std::int64_t columns_of(const ParamSpec& spec) { return spec.elems() / spec.global_shape[0]; }

// target[j * rows + i] = source[i * columns + j], in squares that stay in the cache.
void transpose(const float* source, std::int64_t rows, std::int64_t columns, float* target) {
  constexpr std::int64_t kSide = 32;
  for (std::int64_t i0 = 0; i0 < rows; i0 += kSide) {
    for (std::int64_t j0 = 0; j0 < columns; j0 += kSide) {
      for (std::int64_t i = i0; i < std::min(rows, i0 + kSide); ++i) {
        for (std::int64_t j = j0; j < std::min(columns, j0 + kSide); ++j)
          target[j * rows + i] = source[i * columns + j];
      }
    }
  }
}

void check_sizes(const ForeignTensor& tensor, const ParamSpec& spec, std::size_t theirs, std::size_t ours) {
  const std::vector<std::int64_t> counted = counted_shape(spec);
  STRAKE_CHECK(static_cast<std::int64_t>(theirs) == tensor.elems() && static_cast<std::int64_t>(ours) == spec.elems(),
               "sizes of " + tensor.name);
  STRAKE_CHECK(
      tensor.first_row + tensor.rows() <= counted[0] && tensor.elems() * counted[0] == tensor.rows() * spec.elems(),
      tensor.name + " is no range of rows of " + spec.name);
  STRAKE_CHECK(!spec.initial.transposed || (tensor.first_row == 0 && tensor.rows() == counted[0]),
               tensor.name + " is a part of a transposed parameter");
}

// Calls copy(element of ours, element of theirs) for the begin of each row that both have; a row is `columns` elements
// in both. REQUIRES: ours is not transposed.
template <typename Copy>
void for_each_row(const ForeignTensor& tensor, const ParamSpec& spec, Copy copy) {
  const std::int64_t columns = columns_of(spec);
  for (std::int64_t row = 0; row < spec.global_shape[0]; ++row) {
    const std::int64_t theirs = counted_element(spec, row * columns) / columns - tensor.first_row;
    if (theirs >= 0 && theirs < tensor.rows()) copy(row * columns, theirs * columns);
  }
}

}  // namespace

std::int64_t ForeignTensor::elems() const {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

std::vector<std::int64_t> counted_shape(const ParamSpec& spec) {
  std::vector<std::int64_t> shape = spec.global_shape;
  if (spec.initial.transposed) std::swap(shape[0], shape[1]);
  return shape;
}

RowRange rows_of_part(const ParamSpec& spec, std::size_t part) {
  const std::vector<std::int64_t>& group_rows = spec.initial.group_rows;
  STRAKE_CHECK(part < group_rows.size(), spec.name + " is not stored by groups of rows");
  const auto at = group_rows.begin() + static_cast<std::ptrdiff_t>(part);
  const std::int64_t groups =
      spec.global_shape[0] / std::accumulate(group_rows.begin(), group_rows.end(), std::int64_t{0});
  return {groups * std::accumulate(group_rows.begin(), at, std::int64_t{0}), groups * *at};
}

void copy_from(const ForeignTensor& tensor, const ParamSpec& spec, std::span<const float> theirs,
               std::span<float> ours) {
  check_sizes(tensor, spec, theirs.size(), ours.size());
  std::vector<float> turned;
  if (tensor.in_out != spec.initial.transposed) {
    turned.resize(theirs.size());
    transpose(theirs.data(), tensor.shape[0], tensor.shape[1], turned.data());
    theirs = turned;
  }
  if (spec.initial.transposed) {
    std::ranges::copy(theirs, ours.begin());
    return;
  }
  for_each_row(tensor, spec, [&](std::int64_t our_begin, std::int64_t their_begin) {
    std::copy_n(theirs.data() + their_begin, columns_of(spec), ours.data() + our_begin);
  });
}

void copy_to(const ForeignTensor& tensor, const ParamSpec& spec, std::span<const float> ours, std::span<float> theirs) {
  check_sizes(tensor, spec, theirs.size(), ours.size());
  const bool turns = tensor.in_out != spec.initial.transposed;
  std::vector<float> turned(turns ? theirs.size() : 0);
  const std::span<float> straight = turns ? std::span(turned) : theirs;
  if (spec.initial.transposed) {
    std::ranges::copy(ours, straight.begin());
  } else {
    for_each_row(tensor, spec, [&](std::int64_t our_begin, std::int64_t their_begin) {
      std::copy_n(ours.data() + our_begin, columns_of(spec), straight.data() + their_begin);
    });
  }
  if (turns) transpose(turned.data(), tensor.shape[1], tensor.shape[0], theirs.data());
}

}  // namespace strake::models
