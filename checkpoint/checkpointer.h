// Checkpointer: writes a rank's state so that a crash at any instant loses nothing committed, and reads
// it back exactly, for any number of ranks.
//
// A checkpoint is a folder `step-00001234` with one HDF5 file a rank and `manifest.json`. The manifest is
// the commit record: it names every file with size and CRC32C, and every tensor range. The bytes on disk and
// the protocol are in checkpoint/format.md.
//
// Strategy here: synchronous, sharded. State that every data rank holds alike is cut into ranges of equal
// bytes, one a rank; each byte is written once.
// Threads: the training thread; collective over all ranks (Control).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "comm/control.h"
#include "runtime/device/device.h"
#include "runtime/device/param_spec.h"
#include "runtime/io/files.h"

namespace strake::checkpoint {

// What is kept beside the tensors. All strings are opaque to checkpoint/.
struct Meta {
  std::int64_t step = 0;         // optimizer steps done
  std::int64_t tokens = 0;       // tokens seen over all ranks
  std::int64_t attempt = 0;      // of the process that wrote it
  std::string data_cursor;       // see data/
  std::string tokenizer;         // identity of the token files' tokenizer, JSON
  std::string model;             // model configuration, JSON; compared on load
  std::string choices;           // everything chosen by measurement, JSON
  std::string config_hash;
  int world_size = 1;            // that wrote it
};

struct Options {
  std::filesystem::path directory;  // run.dir / "ckpt"
  int keep = 2;                     // newest valid checkpoints that retention leaves, >= 1
  std::int64_t attempt = 1;
};

// Times of one save, on the host's monotonic clock.
struct SaveReport {
  double snapshot_s = 0;  // until the state had left device memory
  double durable_s = 0;   // until the commit record and its folder were synced
  std::uint64_t bytes = 0;  // of this rank
};

class Checkpointer {
 public:
  // Reserves staging memory for this rank's shard in `host`. `table` describes the state on this rank;
  // files, control, device, copy_out outlive this object.
  Checkpointer(Files& files, comm::Control& control, Device& device, Stream& copy_out, Arena& host, TensorTable table,
               Options options);
  ~Checkpointer();

  // Writes the state as of `state_final` (recorded on the stream that updates it) and returns when it is durable on
  // every rank. Throws IoError on every rank if any rank failed; the previous checkpoint is intact then.
  SaveReport save(const Event& state_final, const Meta& meta);

  // Loads the newest valid checkpoint into the tensors of the table, on any number of ranks. A damaged one is
  // set aside (renamed `.bad-...`) with one log line and the next older is tried. nullopt: there is none and never was.
  // Throws NoCheckpointError if there were some and none is valid; IncompatibleCheckpointError with the
  // differences if names, shapes or dtypes, or `expected_model`, are not ours.
  std::optional<Meta> load_newest(const std::string& expected_model);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace strake::checkpoint
