#include "checkpoint/h5_library.h"

#if H5_VERSION_GE(1, 13, 0)
#include <H5FDdevelop.h>
#endif

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "runtime/base/check.h"
#include "runtime/base/error.h"

namespace strake::checkpoint::h5 {
namespace {

// Datasets from kAlignFromBytes on start at a multiple of kAlignmentBytes, so that they can be written past the page
// cache; smaller ones are packed.
constexpr hsize_t kAlignFromBytes = 64 * 1024;
constexpr hsize_t kAlignmentBytes = 4096;

// ---- A file driver of HDF5 whose file is an H5Image.

struct DriverFile {
  H5FD_t base{};  // first: the library sees this struct as H5FD_t
  H5Image* target = nullptr;
  haddr_t end_of_allocation = 0;
  haddr_t end_of_file = 0;
};
static_assert(std::is_standard_layout_v<DriverFile>);

DriverFile& as_image(H5FD_t* file) { return *reinterpret_cast<DriverFile*>(file); }
const DriverFile& as_image(const H5FD_t* file) { return *reinterpret_cast<const DriverFile*>(file); }

H5FD_t* image_open(const char*, unsigned, hid_t access, haddr_t) {
  const void* info = H5Pget_driver_info(access);
  if (info == nullptr) return nullptr;
  auto* file = new DriverFile;
  std::memcpy(&file->target, info, sizeof file->target);
  return &file->base;
}
herr_t image_close(H5FD_t* file) {
  const std::unique_ptr<DriverFile> image(&as_image(file));
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
  DriverFile& image = as_image(file);
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

Handle open_image(hid_t driver, H5Image& image) {
  const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, "make a property list");
  H5Image* const target = &image;
  check(H5Pset_driver(access, driver, &target), "choose the driver");
  check(H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110), "choose the format");
  check(H5Pset_fclose_degree(access, H5F_CLOSE_STRONG), "choose how to close");
  check(H5Pset_alignment(access, kAlignFromBytes, kAlignmentBytes), "choose the alignment");
  const Handle root = creation_without_times(H5P_FILE_CREATE);
  return Handle(H5Fcreate("image", H5F_ACC_TRUNC, root, access), H5Fclose, "make a file");
}

Handle registered_driver() {
  const H5FD_class_t driver_class = image_driver();
  return Handle(H5FDregister(&driver_class), H5FDunregister, "register a driver");
}

extern "C" herr_t append_error(unsigned, const H5E_error2_t* entry, void* text) {
  auto& message = *static_cast<std::string*>(text);
  if (entry->desc != nullptr && *entry->desc != '\0')
    message += (message.empty() ? "" : ": ") + std::string(entry->desc);
  return 0;
}

std::mutex& the_library() {
  static std::mutex mutex;
  return mutex;
}

}  // namespace

void fail(std::string_view doing) {
  std::string cause;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_DOWNWARD, append_error, &cause);
  throw IoError(fmt::format("HDF5 {} cannot {}: {}", h5_version(), doing, cause.empty() ? "no cause given" : cause), "",
                EIO);
}

void check(herr_t status, std::string_view doing) {
  if (status < 0) fail(doing);
}

Session::Session() : one_at_a_time_(the_library()) {
  H5Eget_auto2(H5E_DEFAULT, &print_, &data_);
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

Session::~Session() { H5Eset_auto2(H5E_DEFAULT, print_, data_); }

ImageFile::ImageFile(H5Image& image)
    : driver_(registered_driver()),
      group_(creation_without_times(H5P_GROUP_CREATE)),
      file_(open_image(driver_, image)) {}

void ImageFile::make_groups_above(const std::string& path) {
  for (std::size_t end = path.find('/'); end != std::string::npos; end = path.find('/', end + 1)) {
    const std::string group = path.substr(0, end);
    if (!groups_.insert(group).second) continue;
    const Handle made(H5Gcreate2(file_, group.c_str(), H5P_DEFAULT, group_, H5P_DEFAULT), H5Gclose,
                      "make the group '" + group + "'");
  }
}

Handle type_of(DType dtype) {
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

Handle creation_without_times(hid_t list_class) {
  Handle list(H5Pcreate(list_class), H5Pclose, "make a property list");
  check(H5Pset_obj_track_times(list, false), "leave out times");
  return list;
}

Handle space_of(std::span<const std::int64_t> shape) {
  const std::vector<hsize_t> extents(shape.begin(), shape.end());
  return Handle(H5Screate_simple(static_cast<int>(extents.size()), extents.data(), nullptr), H5Sclose, "make a space");
}

void write_attribute(hid_t object, const char* name, std::span<const std::int64_t> values, bool scalar) {
  const hsize_t extent = values.size();
  const Handle space(scalar ? H5Screate(H5S_SCALAR) : H5Screate_simple(1, &extent, nullptr), H5Sclose, "make a space");
  const Handle attribute(H5Acreate2(object, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose,
                         "make an attribute");
  check(H5Awrite(attribute, H5T_NATIVE_INT64, values.data()), "write an attribute");
}

void write_attribute(hid_t object, const char* name, const std::string& text) {
  const Handle type(H5Tcopy(H5T_C_S1), H5Tclose, "copy a type");
  check(H5Tset_size(type, H5T_VARIABLE), "describe a text");
  check(H5Tset_cset(type, H5T_CSET_UTF8), "describe a text");
  const Handle space(H5Screate(H5S_SCALAR), H5Sclose, "make a space");
  const Handle attribute(H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose,
                         "make an attribute");
  const char* const value = text.c_str();
  check(H5Awrite(attribute, type, &value), "write an attribute");
}

}  // namespace strake::checkpoint::h5
