// A view of a checkpoint: an HDF5 file of virtual datasets, in which each logical tensor is one dataset of its own
// shape, whatever files of whatever ranks hold it. The view has no data: readers find them in the ranks' files, which
// must stay where they are. For people and their tools; nothing of ours reads it.
//
// Threads: any. Errors: IoError with the library's own messages.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "checkpoint/h5_file.h"
#include "checkpoint/manifest.h"

namespace strake::checkpoint {

// What is said of one tensor: attributes of its dataset.
struct TensorNote {
  std::string orientation;               // "out,in", "in,out"; empty: nothing is said
  std::vector<std::int64_t> group_rows;  // rows by group, as in InitialValue; empty: as they are
};

// A pure function. `folder`: where the view will find the files of the manifest, as the view is to name it: relative to
// the view's own place, or absolute. `notes`: by name of tensor. Where a source is missing, readers find NaN (0 in
// integers). REQUIRES: the manifest was proven.
H5Image lay_out_h5_view(const Manifest& manifest, const std::filesystem::path& folder,
                        const std::map<std::string, TensorNote>& notes);

// A box of a row-major array: `start` and `extent` for each axis, and where it begins in the flat order.
struct Box {
  std::vector<std::int64_t> start, extent;
  std::int64_t begin_elems = 0;
  bool operator==(const Box&) const = default;
};
// Elements [begin_elems, end_elems) of an array of this shape as boxes, each of them one range, in flat order: at most
// 2 axes - 1 of them. REQUIRES: begin_elems < end_elems, in range; at least one axis.
std::vector<Box> boxes_of_range(std::span<const std::int64_t> shape, std::int64_t begin_elems, std::int64_t end_elems);

}  // namespace strake::checkpoint
