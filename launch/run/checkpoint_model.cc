#include "launch/run/checkpoint_model.h"

#include <fmt/format.h>

#include "launch/run/run_folder.h"
#include "runtime/base/error.h"

namespace strake::launch {

models::TransformerShape model_of(const checkpoint::FoundCheckpoint& found) {
  try {
    return models::TransformerShape::from_json(found.manifest.meta.model);
  } catch (const IncompatibleCheckpointError& error) {
    throw IncompatibleCheckpointError(fmt::format("{}: {}", found.path.string(), error.what()));
  }
}

void require_readable_model(Files& files, const std::filesystem::path& run_folder) {
  if (const auto found = checkpoint::find_newest(files, checkpoint_folder(run_folder))) model_of(*found);
}

}  // namespace strake::launch
