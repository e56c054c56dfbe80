// How this folder speaks to the HDF5 library: identifiers that release themselves, its messages as errors, and a file
// that is an H5Image in memory. For h5_*.cc only: nobody else sees hdf5.h.
//
// Threads: whoever holds the Session, which is one at a time (the library may be built without locks of its own).
// Errors: IoError with the library's own messages, which do not go to stderr.
#pragma once

#include <hdf5.h>

#include <cstdint>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "checkpoint/h5_file.h"
#include "runtime/base/dtype.h"

namespace strake::checkpoint::h5 {

[[noreturn]] void fail(std::string_view doing);
void check(herr_t status, std::string_view doing);

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

// The library is ours alone, and prints nothing.
class Session {
 public:
  Session();
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

 private:
  std::lock_guard<std::mutex> one_at_a_time_;  // guards the library's own globals, not ours
  H5E_auto2_t print_ = nullptr;
  void* data_ = nullptr;
};

// A new file that is an image in memory: what is written to it is the image's metadata. The same calls give the same
// bytes. REQUIRES: a Session; `image` outlives it.
class ImageFile {
 public:
  explicit ImageFile(H5Image& image);
  hid_t id() const { return file_; }
  // Those groups above `path` that are not there yet.
  void make_groups_above(const std::string& path);
  // The image is complete then.
  void close() { file_.close("close the file"); }

 private:
  Handle driver_, group_, file_;
  std::set<std::string> groups_;
};

Handle type_of(DType dtype);
// Of datasets and groups that must be equal files for equal states: no time of day.
Handle creation_without_times(hid_t list_class);
Handle space_of(std::span<const std::int64_t> shape);
void write_attribute(hid_t object, const char* name, std::span<const std::int64_t> values, bool scalar);
void write_attribute(hid_t object, const char* name, const std::string& text);

}  // namespace strake::checkpoint::h5
