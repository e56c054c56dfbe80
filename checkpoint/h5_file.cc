#include "checkpoint/h5_file.h"

#include <fmt/format.h>

#include <algorithm>

#include "checkpoint/h5_library.h"

namespace strake::checkpoint {

void SparseBytes::write(std::uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const std::uint64_t in_page = offset % kPageBytes;
    const std::size_t n = std::min<std::size_t>(bytes.size(), kPageBytes - in_page);
    std::copy_n(bytes.begin(), n, pages_[offset / kPageBytes].begin() + static_cast<std::ptrdiff_t>(in_page));
    bytes = bytes.subspan(n);
    offset += n;
  }
}

void SparseBytes::read(std::uint64_t offset, std::span<std::byte> bytes) const {
  while (!bytes.empty()) {
    const std::uint64_t in_page = offset % kPageBytes;
    const std::size_t n = std::min<std::size_t>(bytes.size(), kPageBytes - in_page);
    const auto page = pages_.find(offset / kPageBytes);
    if (page == pages_.end()) {
      std::fill_n(bytes.begin(), n, std::byte{0});
    } else {
      std::copy_n(page->second.begin() + static_cast<std::ptrdiff_t>(in_page), n, bytes.begin());
    }
    bytes = bytes.subspan(n);
    offset += n;
  }
}

H5Image lay_out_h5_file(std::span<const H5Dataset> datasets,
                        std::span<const std::pair<std::string, std::int64_t>> attributes) {
  using h5::Handle, h5::check;
  const h5::Session session;
  H5Image image;
  h5::ImageFile file(image);
  const Handle creation = h5::creation_without_times(H5P_DATASET_CREATE);
  check(H5Pset_layout(creation, H5D_CONTIGUOUS), "choose the layout");
  check(H5Pset_alloc_time(creation, H5D_ALLOC_TIME_EARLY), "choose early allocation");
  check(H5Pset_fill_time(creation, H5D_FILL_TIME_NEVER), "choose no filling");

  for (const auto& [name, value] : attributes) h5::write_attribute(file.id(), name.c_str(), {&value, 1}, true);
  for (const H5Dataset& dataset : datasets) {
    file.make_groups_above(dataset.path);
    const Handle space = h5::space_of(dataset.shape);
    const Handle type = h5::type_of(dataset.dtype);
    const Handle object(H5Dcreate2(file.id(), dataset.path.c_str(), type, space, H5P_DEFAULT, creation, H5P_DEFAULT),
                        H5Dclose, "make the dataset '" + dataset.path + "'");
    h5::write_attribute(object, "global_shape", dataset.global_shape, false);
    h5::write_attribute(object, "begin_elems", {&dataset.begin_elems, 1}, true);
    const haddr_t offset = H5Dget_offset(object);
    if (offset == HADDR_UNDEF) h5::fail("place the dataset '" + dataset.path + "'");
    image.payload_offsets.push_back(offset);
  }
  file.close();
  return image;
}

std::string h5_version() {
  unsigned major = 0, minor = 0, release = 0;
  H5get_libversion(&major, &minor, &release);
  return fmt::format("{}.{}.{}", major, minor, release);
}

}  // namespace strake::checkpoint
