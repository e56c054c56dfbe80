// InitialWeights: what a new run starts from that does not start at random (train.init_from): the weights of another
// run's checkpoint, or of an import. Only weights: moments are zero, step, schedule, data and seed are the new run's
// own.
//
// A damaged newest checkpoint is passed over (checkpoint_source.h), by all ranks together.
// Threads: the training thread. Errors: NoCheckpointError, CorruptError, IncompatibleCheckpointError, DataError,
// IoError, each naming train.init_from.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "comm/control.h"
#include "data/data_cursor.h"
#include "launch/run/checkpoint_source.h"
#include "launch/train/trainer.h"
#include "runtime/io/files.h"

namespace strake::launch {

// Where weights came from, for the manifest.
struct WeightsOrigin {
  std::string checkpoint;  // absolute path
  std::int64_t step = 0;
};

class InitialWeights {
 public:
  // Rank 0, before memory is taken: finds the checkpoint and sees that it is of `model` and of the tokenizer of `data`.
  InitialWeights(Files& files, const std::string& path, const models::TransformerShape& model, data::DataCursor data);

  // Collective, after Trainer::allocate(): the weights, on every rank. `found`: on rank 0.
  static WeightsOrigin load(Files& files, comm::Control& control, InitialWeights* found, Trainer& trainer);

 private:
  checkpoint::FoundCheckpoint next();

  models::TransformerShape model_;
  data::DataCursor data_;
  CheckpointSource source_;
  std::optional<checkpoint::FoundCheckpoint> first_;
};

}  // namespace strake::launch
