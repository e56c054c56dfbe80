// Checkpointer: writes a rank's state so that a crash at any instant loses nothing committed, and reads
// it back exactly, for any number of ranks.
//
// A checkpoint is a folder `step-00001234` with one HDF5 file a rank and `manifest.json`. The manifest is
// the commit record: it names every file with size and CRC32C, and every tensor range. The bytes on disk and
// the protocol are in checkpoint/format.md.
//
// Strategy here: synchronous, sharded. State that every data rank holds alike is cut into ranges of equal
// bytes, one a rank; each byte is written once.
// Threads: the training thread; every call is collective over all ranks (Control).
// Errors: every rank throws the same kind of error, or none does (agreement.h).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "checkpoint/directory.h"
#include "checkpoint/failpoint.h"
#include "checkpoint/folder_lock.h"
#include "checkpoint/meta.h"
#include "comm/control.h"
#include "runtime/device/device.h"
#include "runtime/device/param_spec.h"
#include "runtime/io/files.h"

namespace strake::checkpoint {

struct Options {
  std::filesystem::path directory;  // run.dir / "ckpt"
  int keep = 2;                     // newest whole checkpoints that retention leaves, >= 1
  std::int64_t attempt = 1;
  std::uint64_t chunk_bytes = 16 << 20;  // of one checksum
  Log log = {};                          // lines for people, on rank 0; empty: standard error
  Failpoints* failpoints = nullptr;
};

// Times of one save, on the host's monotonic clock.
struct SaveReport {
  double snapshot_s = 0;    // until the state had left device memory
  double durable_s = 0;     // until the commit record and its folder were synced
  std::uint64_t bytes = 0;  // written by this rank; 0 if this step was committed already
};

class Checkpointer {
 public:
  // Locks the folder, removes what dead attempts left there, and reserves staging memory for this rank's shard in
  // `host`, which may be allocated later. `table` describes the state on this rank; files, control, device, copy_out
  // and host outlive this object.
  // Throws ConfigError if the folder can never be used: no rights, not a folder, another process writes there; IoError
  // if the disk is full or fails.
  Checkpointer(Files& files, comm::Control& control, Device& device, Stream& copy_out, Arena& host, TensorTable table,
               Options options);
  ~Checkpointer();

  // Writes the state as of `state_final` (recorded on the stream that updates it) and returns when it is durable on
  // every rank. A step that is committed already is left as it is. Throws IoError on every rank if any rank failed;
  // the previous checkpoint is intact then and training may go on.
  // Ordering: the tensors may be overwritten when this returns, on any stream.
  SaveReport save(const Event& state_final, const Meta& meta);

  // Loads the newest valid checkpoint into the tensors of the table, on any number of ranks. A damaged one is
  // set aside (renamed `.bad-...`) with one log line and the next older is tried. nullopt: there is none and never was.
  // Throws NoCheckpointError if there were some and none is valid; IncompatibleCheckpointError with the
  // differences if names, shapes or dtypes, or `expected_model`, are not ours. Device memory is written only after
  // every byte of the checkpoint was verified by some rank.
  // REQUIRES: nothing enqueued still uses the tensors. Ordering: they are complete when this returns.
  std::optional<Meta> load_newest(const std::string& expected_model);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace strake::checkpoint
