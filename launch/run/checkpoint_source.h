// CheckpointSource: the checkpoint that a path means to a person who wants to read it (generate, export,
// train.init_from): the newest of a run folder or of its ckpt folder, or the one that is named.
//
// A damaged one is passed over as when a run resumes, with a line that says so; older weights are never used in
// silence. One that vanishes while it is read was retired by the run at work there: a newer one is looked for. Nothing
// is renamed or written. Threads: one. Errors: NoCheckpointError, CorruptError, IoError, IncompatibleCheckpointError.
#pragma once

#include <cstdint>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "checkpoint/folder_lock.h"
#include "checkpoint/reader.h"
#include "runtime/base/error.h"
#include "runtime/io/files.h"

namespace strake::launch {

class CheckpointSource {
 public:
  // `log`: lines for people; empty: warnings on standard error. Throws NoCheckpointError if there is no checkpoint.
  CheckpointSource(Files& files, std::filesystem::path path, checkpoint::Log log = {});

  // The newest that is whole by manifest and file sizes and was not given before. Throws NoCheckpointError if none is
  // left; CorruptError if the one that was named is not whole. REQUIRES: what it gave last was damaged().
  checkpoint::FoundCheckpoint next();
  // What next() gave last is damaged after all: so said its reader. Throws CorruptError if it was the one named.
  void damaged(const CorruptError& why);

 private:
  struct PassedOver {
    std::int64_t step;
    std::string why;
    bool said = false;
  };

  Files& files_;
  std::filesystem::path path_;    // as given
  std::filesystem::path folder_;  // that holds the checkpoints
  checkpoint::Log log_;
  bool named_ = false;               // one checkpoint, and no other will do
  std::vector<std::int64_t> steps_;  // to be looked at, oldest first
  std::set<std::int64_t> seen_;      // given, or found damaged
  std::int64_t given_ = -1;          // what next() gave last
  std::vector<PassedOver> passed_over_;
};

// Calls `use` with the newest checkpoint; when it throws CorruptError, with the next older one.
template <typename Use>
void use_checkpoint(CheckpointSource& source, Use use) {
  while (true) {
    const checkpoint::FoundCheckpoint found = source.next();
    try {
      return use(found);
    } catch (const CorruptError& error) {
      source.damaged(error);
    }
  }
}

}  // namespace strake::launch
