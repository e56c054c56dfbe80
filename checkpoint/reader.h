// Reading checkpoints without owning the run (generate, export, evaluation): no lock, nothing is renamed or removed, no
// other ranks needed.
//
// Errors: IoError, CorruptError, IncompatibleCheckpointError.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "checkpoint/directory.h"
#include "checkpoint/manifest.h"
#include "runtime/device/device.h"
#include "runtime/device/param_spec.h"
#include "runtime/io/files.h"

namespace strake::checkpoint {

struct FoundCheckpoint {
  std::filesystem::path path;
  Manifest manifest;  // meta.model, meta.tokenizer and so on tell what to build before the tensors are read
  bool operator==(const FoundCheckpoint&) const = default;
};

// The newest checkpoint in a run's checkpoint folder that is whole by manifest and file sizes; nullopt: none.
std::optional<FoundCheckpoint> find_newest(Files& files, const std::filesystem::path& directory);

// Fills the tensors of the table; the checkpoint may hold others. Bytes are checked as they are read: on CorruptError
// the tensors are undefined. An empty `expected_model` is not compared. `staging` is host memory of any size > 0.
// REQUIRES: nothing enqueued still uses tensors or staging. Ordering: the tensors are complete when this returns.
void read_tensors(Files& files, const FoundCheckpoint& found, const TensorTable& table,
                  const std::string& expected_model, Stream& stream, const Tensor& staging);

}  // namespace strake::checkpoint
