#include "checkpoint/h5_view.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "checkpoint/h5_library.h"
#include "runtime/base/check.h"

namespace strake::checkpoint {
namespace {

namespace fs = std::filesystem;

void add_boxes(std::span<const std::int64_t> shape, std::vector<std::int64_t>& above, std::int64_t begin,
               std::int64_t end, std::int64_t flat, std::vector<Box>& boxes) {
  const std::size_t axis = above.size();
  const auto add = [&](std::int64_t first, std::int64_t count, std::int64_t at) {
    Box box{above, std::vector<std::int64_t>(axis, 1), at};
    box.start.push_back(first);
    box.extent.push_back(count);
    for (const std::int64_t extent : shape.subspan(axis + 1)) {
      box.start.push_back(0);
      box.extent.push_back(extent);
    }
    boxes.push_back(std::move(box));
  };
  std::int64_t row = 1;  // elements below one index of this axis
  for (const std::int64_t extent : shape.subspan(axis + 1)) row *= extent;
  // Part of a row, whole rows, part of a row; each may be missing.
  const auto add_part = [&](std::int64_t index, std::int64_t from, std::int64_t to) {
    above.push_back(index);
    add_boxes(shape, above, from, to, flat + index * row, boxes);
    above.pop_back();
  };
  std::int64_t first = begin / row;
  if (begin % row != 0) {
    add_part(first, begin % row, std::min(row, end - first * row));
    ++first;
  }
  const std::int64_t last = end / row;
  if (last > first) add(first, last - first, flat + first * row);
  if (end % row != 0 && last >= first) add_part(last, 0, end % row);
}

void select(hid_t space, std::span<const std::int64_t> start, std::span<const std::int64_t> extent) {
  const std::vector<hsize_t> from(start.begin(), start.end()), count(extent.begin(), extent.end());
  h5::check(H5Sselect_hyperslab(space, H5S_SELECT_SET, from.data(), nullptr, count.data(), nullptr), "select a part");
}

// What readers find where a source is missing: nothing that looks like a weight.
void set_fill(hid_t creation, DType dtype) {
  if (dtype != DType::kF32 && dtype != DType::kF64 && dtype != DType::kBF16) return;
  const double missing = std::numeric_limits<double>::quiet_NaN();
  h5::check(H5Pset_fill_value(creation, H5T_NATIVE_DOUBLE, &missing), "choose what fills gaps");
}

// In names of sources % begins a placeholder.
std::string without_placeholders(const std::string& name) {
  std::string out;
  for (const char c : name) out += c == '%' ? std::string("%%") : std::string(1, c);
  return out;
}

// Its ranges lie in the ranks' files as write() has laid them out: a tensor that is whole there in its shape, a part of
// one as a flat range.
h5::Handle mapped(const TensorRecord& tensor, const Manifest& manifest, const fs::path& folder) {
  h5::Handle creation = h5::creation_without_times(H5P_DATASET_CREATE);
  set_fill(creation, tensor.dtype);
  const h5::Handle here = h5::space_of(tensor.shape);
  for (const ShardRecord& shard : tensor.shards) {
    const std::string file = without_placeholders((folder / manifest.files[shard.file].name).string());
    if (shard.elems == tensor.elems()) {
      h5::check(H5Pset_virtual(creation, here, file.c_str(), tensor.name.c_str(), here), "map a tensor");
      continue;
    }
    const h5::Handle there = h5::space_of({&shard.elems, 1});
    for (const Box& box : boxes_of_range(tensor.shape, shard.begin_elems, shard.begin_elems + shard.elems)) {
      std::int64_t count = 1;
      for (const std::int64_t extent : box.extent) count *= extent;
      const std::int64_t from = box.begin_elems - shard.begin_elems;
      select(here, box.start, box.extent);
      select(there, {&from, 1}, {&count, 1});
      h5::check(H5Pset_virtual(creation, here, file.c_str(), tensor.name.c_str(), there), "map a part of a tensor");
    }
    h5::check(H5Sselect_all(here), "select all");
  }
  return creation;
}

}  // namespace

std::vector<Box> boxes_of_range(std::span<const std::int64_t> shape, std::int64_t begin_elems, std::int64_t end_elems) {
  STRAKE_CHECK(!shape.empty() && begin_elems < end_elems, "a range of an array");
  std::vector<Box> boxes;
  std::vector<std::int64_t> above;
  add_boxes(shape, above, begin_elems, end_elems, 0, boxes);
  return boxes;
}

H5Image lay_out_h5_view(const Manifest& manifest, const fs::path& folder,
                        const std::map<std::string, TensorNote>& notes) {
  const h5::Session session;
  H5Image image;
  h5::ImageFile file(image);
  for (const auto& [name, value] : {std::pair("strake_view", std::int64_t{1}),
                                    {"step", manifest.meta.step},
                                    {"world_size", std::int64_t{manifest.meta.world_size}}}) {
    h5::write_attribute(file.id(), name, {&value, 1}, true);
  }
  for (const TensorRecord& tensor : manifest.tensors) {
    file.make_groups_above(tensor.name);
    const h5::Handle creation = mapped(tensor, manifest, folder);
    const h5::Handle space = h5::space_of(tensor.shape);
    const h5::Handle type = h5::type_of(tensor.dtype);
    const h5::Handle object(H5Dcreate2(file.id(), tensor.name.c_str(), type, space, H5P_DEFAULT, creation, H5P_DEFAULT),
                            H5Dclose, "make the dataset '" + tensor.name + "'");
    const auto note = notes.find(tensor.name);
    if (note == notes.end()) continue;
    if (!note->second.orientation.empty()) h5::write_attribute(object, "orientation", note->second.orientation);
    if (!note->second.group_rows.empty()) h5::write_attribute(object, "group_rows", note->second.group_rows, false);
  }
  file.close();
  return image;
}

}  // namespace strake::checkpoint
