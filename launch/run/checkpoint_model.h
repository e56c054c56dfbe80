// The model that a checkpoint holds.
// Threads: pure functions. Errors: IncompatibleCheckpointError naming the checkpoint, where this version has no such
// model, or stores its weights in another order and has a command that converts them, or it is not the one wanted.
#pragma once

#include <filesystem>
#include <string_view>

#include "checkpoint/reader.h"
#include "models/transformer_shape.h"
#include "runtime/io/files.h"

namespace strake::launch {

models::TransformerShape model_of(const checkpoint::FoundCheckpoint& found);

// Throws if that is not `wanted`, naming the keys of a configuration that differ, both values, and what to set them to.
// `otherwise`: what else can be done.
void require_model(const checkpoint::FoundCheckpoint& found, const models::TransformerShape& wanted,
                   std::string_view otherwise);

// The same of the newest whole checkpoint of a run that is to go on. No checkpoint is well.
void require_model_of_run(Files& files, const std::filesystem::path& run_folder,
                          const models::TransformerShape& wanted);

}  // namespace strake::launch
