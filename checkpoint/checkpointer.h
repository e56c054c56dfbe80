// Checkpointer: writes a rank's state so that a crash at any instant loses nothing committed, and reads
// it back exactly, for any number of ranks.
//
// A checkpoint is a folder `step-00001234` with one HDF5 file a rank and `manifest.json`. The manifest is
// the commit record: it names every file with size and CRC32C, and every tensor range. The bytes on disk and
// the protocol are in checkpoint/format.md.
//
// Sharded: state that every data rank holds alike is cut into ranges of equal bytes, one a rank; each byte is written
// once. How the state leaves the device, and whether training goes on meanwhile, is the strategy's (strategy.h): where
// it does, a thread of its own proves, writes, votes and publishes, on a control of its own. One save is in flight at a
// time.
// Threads: the training thread; what has no other word is collective over all ranks (Control).
// Errors: every rank throws the same kind of error, or none does (agreement.h), but for a lost peer or device.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "checkpoint/directory.h"
#include "checkpoint/failpoint.h"
#include "checkpoint/folder_lock.h"
#include "checkpoint/meta.h"
#include "checkpoint/pass_on.h"
#include "checkpoint/shard_writer.h"
#include "checkpoint/strategy.h"
#include "comm/control.h"
#include "runtime/device/device.h"
#include "runtime/device/param_spec.h"
#include "runtime/io/files.h"

namespace strake::checkpoint {

struct Options {
  std::filesystem::path directory;  // run.dir / "ckpt"
  int keep = 2;                     // newest whole checkpoints that retention leaves, >= 1, and beside them ...
  std::int64_t keep_every = 0;      // those of every so many steps; 0: off
  int keep_best = 0;                // so many with the lowest held-out loss
  std::int64_t attempt = 1;
  WriteOptions write = {};
  Log log = {};  // lines for people, on rank 0; empty: standard error
  Failpoints* failpoints = nullptr;
  StrategyKind strategy = StrategyKind::kSync;
  bool paranoid = false;  // what is written is compared with what the device held: image_proof.h
  int read_threads = 1;   // of loading
};

// Times of one save since it was called, on the host's monotonic clock.
struct SaveReport {
  double returned_s = 0;    // until begin() returned
  double snapshot_s = 0;    // until host memory held the state
  double durable_s = 0;     // until the commit record and its folder were synced: only now there is a checkpoint
  std::uint64_t bytes = 0;  // written by this rank; 0 if this step was committed already
};

// What loading took of this rank.
struct LoadReport {
  std::uint64_t read_bytes = 0;  // from files of the checkpoint, its manifest not among them
  std::size_t files = 0;         // opened for that
  std::uint64_t held_bytes = 0;  // of the state on this rank
  bool passed_on = false;        // what several ranks hold, one of them has read
  double read_s = 0;             // until all was proven
  double seconds = 0;            // until the tensors were complete
};

// What must hold before a state is worth writing; throws where it does not, on every rank or on none. What is known
// only then it adds to `meta`, of which rank 0's counts. Called by the thread that writes, with the control that it
// votes on.
using Proof = std::function<void(comm::Control& control, Meta& meta)>;

// Where a save's copies of this rank's part of the state lie; allocated later.
struct SaveMemory {
  Arena& host;
  Arena* device = nullptr;   // of StrategyKind::kDevice
  Arena* scalars = nullptr;  // on the device, of Options::paranoid
};

class Checkpointer {
 public:
  // Locks the folder, removes what dead attempts left there, and reserves memory for this rank's shard. `table`
  // describes the state on this rank; files, control, device, copy_out and memory outlive this object.
  // Throws ConfigError if the folder can never be used: no rights, not a folder, another process writes there; IoError
  // if the disk is full or fails.
  Checkpointer(Files& files, comm::Control& control, Device& device, Stream& copy_out, SaveMemory memory,
               TensorTable table, Options options);
  // Waits for a save in flight.
  ~Checkpointer();

  // Of Options::paranoid, before begin(): enqueues on `updating`, behind the last update, that the device looks at what
  // is to be saved. Otherwise nothing.
  void look(Stream& updating);
  // Begins to write the state as of `state_final` (recorded on the stream that updates it); how it goes, finish() says.
  // A step that is committed already is left as it is. REQUIRES: no save is in flight.
  // Ordering: fence() says when the tensors may be overwritten.
  void begin(const Event& state_final, const Meta& meta, Proof proof = {});
  // What the strategy keeps from running meanwhile.
  Holds holds() const;
  // What is enqueued on `updating` behind this may overwrite the state: it waits until that has left. Local; nothing
  // where no save was begun since.
  void fence(Stream& updating);
  bool must_fence() const;

  // Begun, and not finished.
  bool in_flight() const;
  // Has this rank's thread done its part of the save in flight, well or badly? Local; waits for nothing, orders
  // nothing.
  bool ended() const;
  // Throws at once what only this rank has met in it. Local.
  void check();
  // Waits until ended(), or for `limit`. Local.
  void wait_for(std::chrono::duration<double> limit);
  // Waits until the save in flight is durable on every rank. Throws IoError on every rank if any rank failed, or what
  // its proof threw, or an Error of ExitCode::kFailure if look() was contradicted; the checkpoint before is intact then
  // and training may go on.
  SaveReport finish();

  // Both.
  SaveReport save(const Event& state_final, const Meta& meta) {
    begin(state_final, meta);
    return finish();
  }

  // Loads the newest valid checkpoint into the tensors of the table, on any number of ranks. A damaged one is
  // set aside (renamed `.bad-...`) with one log line and the next older is tried. nullopt: there is none and never was.
  // Throws NoCheckpointError if there were some and none is valid; IncompatibleCheckpointError with the
  // differences if names, shapes or dtypes, or `expected_model`, are not ours. Device memory is written only after
  // every byte of the checkpoint was verified by some rank. Each rank reads what it would write, and with an `exchange`
  // passes on what others hold too; without one, each reads that once more, checking again.
  // REQUIRES: nothing enqueued still uses the tensors. Ordering: they are complete when this returns.
  std::optional<Meta> load_newest(const std::string& expected_model,
                                  const std::optional<Exchange>& exchange = std::nullopt);
  // Of the checkpoint that load_newest() gave last.
  const LoadReport& loaded() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace strake::checkpoint
