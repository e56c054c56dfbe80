// The model that a checkpoint holds.
// Threads: pure functions. Errors: IncompatibleCheckpointError naming the checkpoint, where this version has no such
// model, or stores its weights in another order and has a command that converts them.
#pragma once

#include <filesystem>

#include "checkpoint/reader.h"
#include "models/transformer_shape.h"
#include "runtime/io/files.h"

namespace strake::launch {

models::TransformerShape model_of(const checkpoint::FoundCheckpoint& found);

// What model_of() throws for the newest whole checkpoint of a run. No checkpoint is well.
void require_readable_model(Files& files, const std::filesystem::path& run_folder);

}  // namespace strake::launch
