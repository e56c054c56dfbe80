// Manifest: the commit record of a checkpoint. It names every file with size and checksums and says where every
// byte of every tensor lies. The bytes are documented in checkpoint/format.md.
//
// A Manifest that parse_manifest returns is proven: names are harmless, sizes do not overflow, every shard lies inside
// its file, no two shards share bytes, and each tensor is covered exactly once. Nothing of it was compared with the
// files yet.
// Threads: values and pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/meta.h"
#include "runtime/base/dtype.h"

namespace strake::checkpoint {

inline constexpr std::string_view kManifestName = "manifest.json";
inline constexpr std::uint64_t kMaxManifestBytes = 64 << 20;
inline constexpr std::uint64_t kMinChunkBytes = 1 << 10;
inline constexpr std::uint64_t kMaxChunkBytes = 64 << 20;

struct FileRecord {
  std::string name;  // in the checkpoint's folder
  std::uint64_t size_bytes = 0;
  std::uint64_t chunk_bytes = 0;
  std::vector<std::uint32_t> chunk_crcs;  // CRC32C of each chunk; the last may be shorter

  bool operator==(const FileRecord&) const = default;
};

// A flat range of a row-major tensor.
struct ShardRecord {
  std::size_t file = 0;  // index into Manifest::files
  std::uint64_t offset_bytes = 0;
  std::int64_t begin_elems = 0;
  std::int64_t elems = 0;

  bool operator==(const ShardRecord&) const = default;
};

struct TensorRecord {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;
  std::vector<ShardRecord> shards;  // by begin_elems

  std::int64_t elems() const;
  bool operator==(const TensorRecord&) const = default;
};

struct Manifest {
  Meta meta;
  std::vector<FileRecord> files;
  std::vector<TensorRecord> tensors;  // by name

  std::uint64_t total_bytes() const;  // of all files
  const TensorRecord* find(std::string_view name) const;
  bool operator==(const Manifest&) const = default;
};

// Throws ConfigError if a text of the Meta is not UTF-8. REQUIRES: tensors sorted by name, shards by begin_elems.
std::string serialize(const Manifest& manifest);

// Throws CorruptError naming `path` and what is wrong; IncompatibleCheckpointError if the bytes are sound and the
// format is of a later major version.
Manifest parse_manifest(std::string_view text, const std::string& path);

// Is this a name that a tensor may have? Letters, digits, "_.-", and '/' between non-empty parts; no "..".
bool valid_tensor_name(std::string_view name);
// A file's: lower-case letters, digits, "._-", at most 64, starting with a letter or digit, no "..".
bool valid_file_name(std::string_view name);

}  // namespace strake::checkpoint
