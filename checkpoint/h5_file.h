// The HDF5 side of a rank's file: where its datasets lie and every byte of it that is not their payload.
//
// The library works on an image in memory that holds metadata only, however large the datasets are; it never
// touches the disk. So a full disk, a short write or a crash happens in our code, never inside HDF5, which may
// report success for a torn file and crash at exit after a failed write. The payload goes to the offsets given here.
//
// Threads: any; calls run one at a time (the library may be built without locks of its own).
// Errors: IoError with the library's own messages, which do not go to stderr.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "runtime/base/dtype.h"

namespace strake::checkpoint {

struct H5Dataset {
  std::string path;  // '/' makes groups: "param/h.0.attn.weight"
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;         // of the dataset; every extent >= 1
  std::vector<std::int64_t> global_shape;  // attribute: of the logical tensor
  std::int64_t begin_elems = 0;            // attribute: where the dataset starts in the row-major logical tensor
};

// Bytes at arbitrary places, zero where nothing was written.
class SparseBytes {
 public:
  void write(std::uint64_t offset, std::span<const std::byte> bytes);
  void read(std::uint64_t offset, std::span<std::byte> bytes) const;

 private:
  static constexpr std::uint64_t kPageBytes = 4096;
  std::map<std::uint64_t, std::array<std::byte, kPageBytes>> pages_;  // by page number
};

struct H5Image {
  std::uint64_t size_bytes = 0;
  std::vector<std::uint64_t> payload_offsets;  // of each dataset, in the order given
  SparseBytes metadata;                        // everything else
};

// A pure function: the same arguments give the same bytes. `attributes` go to the root group.
// REQUIRES: paths are distinct and none is a part of another.
H5Image lay_out_h5_file(std::span<const H5Dataset> datasets,
                        std::span<const std::pair<std::string, std::int64_t>> attributes);

// "1.10.8"
std::string h5_version();

}  // namespace strake::checkpoint
