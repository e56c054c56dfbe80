// `strake ckpt view`: one HDF5 file in which every logical tensor of a checkpoint can be read whole.
#include <fmt/format.h>

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/h5_view.h"
#include "checkpoint/shard_file.h"
#include "launch/commands/commands.h"
#include "launch/commands/host_weights.h"
#include "launch/run/checkpoint_model.h"
#include "launch/run/checkpoint_source.h"
#include "models/transformer.h"
#include "runtime/base/error.h"

namespace strake::launch {
namespace {

namespace fs = std::filesystem;

// What is known of the parameters of a model that this version has, for them and their moments.
std::map<std::string, checkpoint::TensorNote> notes_on(const checkpoint::FoundCheckpoint& found) {
  std::map<std::string, checkpoint::TensorNote> notes;
  ParamLayout layout;
  try {
    layout = models::parameters_of(model_of(found));
  } catch (const IncompatibleCheckpointError&) {  // of another version: nothing is said
    return notes;
  }
  std::map<std::string_view, const ParamSpec*> specs;
  for (const ParamSpec& spec : layout.specs()) specs[spec.name] = &spec;
  for (const checkpoint::TensorRecord& tensor : found.manifest.tensors) {
    const auto spec = specs.find(std::string_view(tensor.name).substr(tensor.name.find('/') + 1));
    if (spec == specs.end() || spec->second->global_shape != tensor.shape) continue;
    checkpoint::TensorNote note{.orientation = "", .group_rows = spec->second->initial.group_rows};
    if (tensor.shape.size() == 2) note.orientation = spec->second->initial.transposed ? "in,out" : "out,in";
    notes.emplace(tensor.name, note);
  }
  return notes;
}

}  // namespace

int view_checkpoint(const ViewArguments& arguments) {
  PosixFiles files;
  const std::string out = fmt::format("--out: {}", arguments.out.string());
  const fs::path above = arguments.out.has_parent_path() ? arguments.out.parent_path() : fs::path(".");
  checkpoint::use_folder(out, [&] {
    if (files.exists(arguments.out)) {
      throw ConfigError(fmt::format("{} is there; remove it, or name another file", out));
    }
    require_folder(files, "--out", above);
    require_outside_checkpoints(files, "--out", above);
  });
  CheckpointSource source(files, arguments.path);
  const checkpoint::FoundCheckpoint found = source.next();  // every file is there with its size
  checkpoint::use_folder(out, [&] { files.make_directories(above); });
  // Relative, so that a run folder with a view in it may be moved.
  const fs::path folder = fs::proximate(fs::canonical(found.path), fs::canonical(above));
  const checkpoint::H5Image image = checkpoint::lay_out_h5_view(found.manifest, folder, notes_on(found));
  std::string bytes(static_cast<std::size_t>(image.size_bytes), '\0');
  image.metadata.read(0, std::as_writable_bytes(std::span(bytes)));
  checkpoint::use_folder(out, [&] { write_file_durably(files, arguments.out, bytes); });
  fmt::print("{}: {} tensors, step {} of {}, whose files it needs\n", arguments.out.string(),
             found.manifest.tensors.size(), found.manifest.meta.step, found.path.string());
  return 0;
}

}  // namespace strake::launch
