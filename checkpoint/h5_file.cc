#include "checkpoint/h5_file.h"

#include <hdf5.h>
#if H5_VERSION_GE(1, 13, 0)
#include <H5FDdevelop.h>
#endif

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <mutex>
#include <set>

#include "runtime/base/check.h"
#include "runtime/base/error.h"

namespace strake::checkpoint {
namespace {

// Datasets from kAlignFromBytes on start at a multiple of kAlignmentBytes, so that they can be written past the page
// cache; smaller ones are packed.
constexpr hsize_t kAlignFromBytes = 64 * 1024;
constexpr hsize_t kAlignmentBytes = 4096;

// ---- A file driver of HDF5 whose file is an H5Image.

struct ImageFile {
  H5FD_t base{};  // first: the library sees this struct as H5FD_t
  H5Image* target = nullptr;
  haddr_t end_of_allocation = 0;
  haddr_t end_of_file = 0;
};
static_assert(std::is_standard_layout_v<ImageFile>);

ImageFile& as_image(H5FD_t* file) { return *reinterpret_cast<ImageFile*>(file); }
const ImageFile& as_image(const H5FD_t* file) { return *reinterpret_cast<const ImageFile*>(file); }

H5FD_t* image_open(const char*, unsigned, hid_t access, haddr_t) {
  const void* info = H5Pget_driver_info(access);
  if (info == nullptr) return nullptr;
  auto* file = new ImageFile;
  std::memcpy(&file->target, info, sizeof file->target);
  return &file->base;
}
herr_t image_close(H5FD_t* file) {
  const std::unique_ptr<ImageFile> image(&as_image(file));
  image->target->size_bytes = image->end_of_file;
  return 0;
}
herr_t image_query(const H5FD_t*, unsigned long* flags) {
  *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_AGGREGATE_SMALLDATA | H5FD_FEAT_DEFAULT_VFD_COMPATIBLE;
  return 0;
}
haddr_t image_get_eoa(const H5FD_t* file, H5FD_mem_t) { return as_image(file).end_of_allocation; }
herr_t image_set_eoa(H5FD_t* file, H5FD_mem_t, haddr_t end) {
  as_image(file).end_of_allocation = end;
  return 0;
}
haddr_t image_get_eof(const H5FD_t* file, H5FD_mem_t) { return as_image(file).end_of_file; }
herr_t image_read(H5FD_t* file, H5FD_mem_t, hid_t, haddr_t offset, std::size_t size, void* into) {
  as_image(file).target->metadata.read(offset, {static_cast<std::byte*>(into), size});
  return 0;
}
herr_t image_write(H5FD_t* file, H5FD_mem_t, hid_t, haddr_t offset, std::size_t size, const void* from) {
  ImageFile& image = as_image(file);
  image.target->metadata.write(offset, {static_cast<const std::byte*>(from), size});
  image.end_of_file = std::max<haddr_t>(image.end_of_file, offset + size);
  return 0;
}
herr_t image_truncate(H5FD_t* file, hid_t, hbool_t) {
  as_image(file).end_of_file = as_image(file).end_of_allocation;
  return 0;
}

H5FD_class_t image_driver() {
  H5FD_class_t driver{};
#if H5_VERSION_GE(1, 13, 0)
  driver.version = H5FD_CLASS_VERSION;
  driver.value = H5_VFD_RESERVED + 83;  // any number outside the library's own
#endif
  driver.name = "strake_image";
  driver.maxaddr = HADDR_MAX;
  driver.fc_degree = H5F_CLOSE_STRONG;
  driver.fapl_size = sizeof(H5Image*);
  driver.open = image_open;
  driver.close = image_close;
  driver.query = image_query;
  driver.get_eoa = image_get_eoa;
  driver.set_eoa = image_set_eoa;
  driver.get_eof = image_get_eof;
  driver.read = image_read;
  driver.write = image_write;
  driver.truncate = image_truncate;
  const H5FD_mem_t map[H5FD_MEM_NTYPES] = H5FD_FLMAP_DICHOTOMY;
  std::copy(std::begin(map), std::end(map), std::begin(driver.fl_map));
  return driver;
}

// ---- Errors and handles.

extern "C" herr_t append_error(unsigned, const H5E_error2_t* entry, void* text) {
  auto& message = *static_cast<std::string*>(text);
  if (entry->desc != nullptr && *entry->desc != '\0')
    message += (message.empty() ? "" : ": ") + std::string(entry->desc);
  return 0;
}

[[noreturn]] void fail(std::string_view doing) {
  std::string cause;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_DOWNWARD, append_error, &cause);
  throw IoError(fmt::format("HDF5 {} cannot {}: {}", h5_version(), doing, cause.empty() ? "no cause given" : cause), "",
                EIO);
}

void check(herr_t status, std::string_view doing) {
  if (status < 0) fail(doing);
}

// An HDF5 identifier that releases itself.
class Handle {
 public:
  Handle(hid_t id, herr_t (*release)(hid_t), std::string_view doing) : id_(id), release_(release) {
    if (id < 0) fail(doing);
  }
  ~Handle() {
    if (id_ >= 0) release_(id_);
  }
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), release_(other.release_) {}
  Handle& operator=(Handle&&) = delete;
  operator hid_t() const { return id_; }  // handed to C functions all the time
  // Releases now, reporting a failure.
  void close(std::string_view doing) { check(release_(std::exchange(id_, -1)), doing); }

 private:
  hid_t id_;
  herr_t (*release_)(hid_t);
};

// Keeps the library from printing while in scope.
class QuietErrors {
 public:
  QuietErrors() {
    H5Eget_auto2(H5E_DEFAULT, &print_, &data_);
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  }
  ~QuietErrors() { H5Eset_auto2(H5E_DEFAULT, print_, data_); }
  QuietErrors(const QuietErrors&) = delete;
  QuietErrors& operator=(const QuietErrors&) = delete;

 private:
  H5E_auto2_t print_ = nullptr;
  void* data_ = nullptr;
};

Handle hdf5_type(DType dtype) {
  const auto copy = [](hid_t id) { return Handle(H5Tcopy(id), H5Tclose, "copy a type"); };
  switch (dtype) {
    case DType::kF32:
      return copy(H5T_IEEE_F32LE);
    case DType::kF64:
      return copy(H5T_IEEE_F64LE);
    case DType::kI32:
      return copy(H5T_STD_I32LE);
    case DType::kI64:
      return copy(H5T_STD_I64LE);
    case DType::kU8:
      return copy(H5T_STD_U8LE);
    case DType::kBF16: {  // sign 1, exponent 8, mantissa 7; readers convert it to float
      Handle type = copy(H5T_IEEE_F32LE);
      check(H5Tset_fields(type, 15, 7, 8, 0, 7), "describe bf16");
      check(H5Tset_size(type, 2), "describe bf16");
      check(H5Tset_ebias(type, 127), "describe bf16");
      return type;
    }
  }
  STRAKE_CHECK(false, "unknown dtype");
}

void write_attribute(hid_t object, const char* name, std::span<const std::int64_t> values, bool scalar) {
  const hsize_t extent = values.size();
  const Handle space(scalar ? H5Screate(H5S_SCALAR) : H5Screate_simple(1, &extent, nullptr), H5Sclose, "make a space");
  const Handle attribute(H5Acreate2(object, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose,
                         "make an attribute");
  check(H5Awrite(attribute, H5T_NATIVE_INT64, values.data()), "write an attribute");
}

}  // namespace

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
  static std::mutex one_at_a_time;  // guards the library's own globals, not ours
  const std::lock_guard guard(one_at_a_time);
  const QuietErrors quiet;

  H5Image image;
  const H5FD_class_t driver_class = image_driver();
  const Handle driver(H5FDregister(&driver_class), H5FDunregister, "register a driver");
  const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, "make a property list");
  H5Image* const target = &image;
  check(H5Pset_driver(access, driver, &target), "choose the driver");
  check(H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110), "choose the format");
  check(H5Pset_fclose_degree(access, H5F_CLOSE_STRONG), "choose how to close");
  check(H5Pset_alignment(access, kAlignFromBytes, kAlignmentBytes), "choose the alignment");

  // Objects are made with the time of day unless told otherwise; equal states must be equal files.
  const Handle root(H5Pcreate(H5P_FILE_CREATE), H5Pclose, "make a property list");
  check(H5Pset_obj_track_times(root, false), "leave out times");
  const Handle group(H5Pcreate(H5P_GROUP_CREATE), H5Pclose, "make a property list");
  check(H5Pset_obj_track_times(group, false), "leave out times");
  const Handle creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, "make a property list");
  check(H5Pset_layout(creation, H5D_CONTIGUOUS), "choose the layout");
  check(H5Pset_alloc_time(creation, H5D_ALLOC_TIME_EARLY), "choose early allocation");
  check(H5Pset_fill_time(creation, H5D_FILL_TIME_NEVER), "choose no filling");
  check(H5Pset_obj_track_times(creation, false), "leave out times");

  Handle file(H5Fcreate("image", H5F_ACC_TRUNC, root, access), H5Fclose, "make a file");
  for (const auto& [name, value] : attributes) write_attribute(file, name.c_str(), {&value, 1}, true);
  std::set<std::string> groups;
  for (const H5Dataset& dataset : datasets) {
    for (std::size_t end = dataset.path.find('/'); end != std::string::npos; end = dataset.path.find('/', end + 1)) {
      const std::string path = dataset.path.substr(0, end);
      if (!groups.insert(path).second) continue;
      const Handle made(H5Gcreate2(file, path.c_str(), H5P_DEFAULT, group, H5P_DEFAULT), H5Gclose,
                        "make the group '" + path + "'");
    }
    const std::vector<hsize_t> extents(dataset.shape.begin(), dataset.shape.end());
    const Handle space(H5Screate_simple(static_cast<int>(extents.size()), extents.data(), nullptr), H5Sclose,
                       "make the space of '" + dataset.path + "'");
    const Handle type = hdf5_type(dataset.dtype);
    const Handle object(H5Dcreate2(file, dataset.path.c_str(), type, space, H5P_DEFAULT, creation, H5P_DEFAULT),
                        H5Dclose, "make the dataset '" + dataset.path + "'");
    write_attribute(object, "global_shape", dataset.global_shape, false);
    write_attribute(object, "begin_elems", {&dataset.begin_elems, 1}, true);
    const haddr_t offset = H5Dget_offset(object);
    if (offset == HADDR_UNDEF) fail("place the dataset '" + dataset.path + "'");
    image.payload_offsets.push_back(offset);
  }
  file.close("close the file");
  return image;
}

std::string h5_version() {
  unsigned major = 0, minor = 0, release = 0;
  H5get_libversion(&major, &minor, &release);
  return fmt::format("{}.{}.{}", major, minor, release);
}

}  // namespace strake::checkpoint
