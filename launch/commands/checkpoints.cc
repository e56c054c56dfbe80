#include <fmt/format.h>

#include <algorithm>

#include "checkpoint/directory.h"
#include "launch/commands/commands.h"
#include "launch/run_folder.h"
#include "runtime/base/error.h"
#include "runtime/io/files.h"

namespace strake::launch {
namespace {

// A checkpoint, the folder that holds checkpoints, or the run folder above it.
bool is_checkpoint(const std::filesystem::path& path) {
  // "runs/a/ckpt/step-00000005/" ends in an empty name.
  const std::filesystem::path name = path.has_filename() ? path.filename() : path.parent_path().filename();
  return checkpoint::step_of(name.string()).has_value();
}

std::filesystem::path holder(Files& files, const std::filesystem::path& path) {
  return files.is_directory(checkpoint_folder(path)) ? checkpoint_folder(path) : path;
}

std::vector<checkpoint::CheckpointSummary> summaries(Files& files, const std::filesystem::path& path) {
  auto found = checkpoint::list_checkpoints(files, holder(files, path));
  if (found.empty()) {
    throw NoCheckpointError(fmt::format("{}: no checkpoint here; give a run folder or its ckpt folder", path.string()));
  }
  return found;
}

double mebibytes(std::uint64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

}  // namespace

int list_checkpoints(const std::filesystem::path& path) {
  PosixFiles files;
  for (const auto& summary : summaries(files, path)) {
    fmt::print("{}  step {}  {} tokens  {:.1f} MiB  {}\n", summary.path.string(), summary.step, summary.tokens,
               mebibytes(summary.size_bytes), summary.whole ? "whole" : summary.problem);
  }
  return 0;
}

int verify_checkpoints(const std::filesystem::path& path) {
  PosixFiles files;
  std::vector<std::filesystem::path> paths;
  if (is_checkpoint(path)) {
    paths.push_back(path);
  } else {
    for (const auto& summary : summaries(files, path)) paths.push_back(summary.path);
  }
  // All are judged before the first damage is reported: one bad checkpoint does not hide the state of the others.
  std::string damage;
  for (const auto& each : paths) {
    try {
      checkpoint::verify_checkpoint(files, each);
      fmt::print("{}: every byte is as written\n", each.string());
    } catch (const CorruptError& error) {
      fmt::print("{}: damaged\n", each.string());
      damage += fmt::format("{}{}", damage.empty() ? "" : "\n", error.what());
    }
  }
  if (!damage.empty()) throw CorruptError(damage, path.string(), 0);
  return 0;
}

}  // namespace strake::launch
