#include "launch/run/checkpoint_model.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <string>
#include <vector>

#include "launch/job/model_shape.h"
#include "launch/run/run_folder.h"
#include "runtime/base/error.h"

namespace strake::launch {
namespace {

std::string_view shown(std::string_view value) { return value.empty() ? "not set" : value; }

}  // namespace

models::TransformerShape model_of(const checkpoint::FoundCheckpoint& found) {
  try {
    return models::TransformerShape::from_json(found.manifest.meta.model);
  } catch (const IncompatibleCheckpointError& error) {
    throw IncompatibleCheckpointError(fmt::format("{}: {}", found.path.string(), error.what()));
  }
}

void require_model(const checkpoint::FoundCheckpoint& found, const models::TransformerShape& wanted,
                   std::string_view otherwise) {
  const models::TransformerShape saved = model_of(found);
  if (saved == wanted) return;
  const ModelKeys ours = keys_of(wanted);
  std::vector<std::string> differences;
  ModelKeys remedy;
  for (const auto& [key, value] : keys_of(saved)) {
    const auto mine = std::find_if(ours.begin(), ours.end(), [&](const auto& entry) { return entry.first == key; });
    if (mine != ours.end() && mine->second == value) continue;
    remedy.emplace_back(key, value);
    // What another model.kind does not have needs no words of its own.
    if (mine != ours.end())
      differences.push_back(fmt::format("{} is {}, ours {}", key, shown(value), shown(mine->second)));
  }
  throw IncompatibleCheckpointError(fmt::format("{}: is of another model: {}; {}{}", found.path.string(),
                                                differences.empty() ? "no model.kind of this version has its kinds"
                                                                    : fmt::format("{}", fmt::join(differences, "; ")),
                                                remedy.empty() ? "" : fmt::format("set {}, or ", to_text(remedy)),
                                                otherwise));
}

void require_model_of_run(Files& files, const std::filesystem::path& run_folder,
                          const models::TransformerShape& wanted) {
  const auto found = checkpoint::find_newest(files, checkpoint_folder(run_folder));
  if (found.has_value()) require_model(*found, wanted, "choose another run.dir");
}

}  // namespace strake::launch
