// ForeignTensor: a tensor of files that we did not write, as a part of a parameter of ours, and the copying between
// their order of elements and ours.
//
// Between the two stands the order in which a parameter's elements are counted (InitialValue): a matrix [out, in] whose
// rows lie part by part: all queries, then all keys, then all values. Theirs is a range of those rows, perhaps
// transposed. How ours is stored is for the ParamSpec to say, and is not repeated here.
//
// Threads: pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "runtime/device/param_spec.h"

namespace strake::models {

struct ForeignTensor {
  std::string name;                 // in the files
  std::vector<std::int64_t> shape;  // there
  ParamId param;                    // in parameters_of
  std::int64_t first_row = 0;       // of the parameter, as it is counted: theirs are the rows from here on
  bool in_out = false;              // kept [in, out] there: a row of ours is a column of theirs

  std::int64_t elems() const;
  std::int64_t rows() const { return in_out ? shape[1] : shape[0]; }  // as they are counted
};

// The parameter's shape as its elements are counted.
std::vector<std::int64_t> counted_shape(const ParamSpec& spec);
// Counted rows [first, first + rows) of part `part` of a parameter whose rows are stored by group (queries, keys,
// values; gate, up). REQUIRES: they are.
struct RowRange {
  std::int64_t first, rows;
};
RowRange rows_of_part(const ParamSpec& spec, std::size_t part);

// ours: all of the parameter, as stored; theirs: of tensor.shape, row-major. Elements of ours that are not the tensor's
// stay as they are.
void copy_from(const ForeignTensor& tensor, const ParamSpec& spec, std::span<const float> theirs,
               std::span<float> ours);
void copy_to(const ForeignTensor& tensor, const ParamSpec& spec, std::span<const float> ours, std::span<float> theirs);

}  // namespace strake::models
