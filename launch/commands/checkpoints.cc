#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

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

std::vector<checkpoint::CheckpointSummary> found_in(Files& files, const std::filesystem::path& path) {
  return checkpoint::list_checkpoints(files, holder(files, path));
}

std::vector<checkpoint::CheckpointSummary> summaries(Files& files, const std::filesystem::path& path) {
  auto found = found_in(files, path);
  if (found.empty()) {
    throw NoCheckpointError(fmt::format("{}: no checkpoint here; give a run folder or its ckpt folder", path.string()));
  }
  return found;
}

// Reads every byte; empty: it is whole.
std::string damage_of(Files& files, const std::filesystem::path& checkpoint) {
  try {
    checkpoint::verify_checkpoint(files, checkpoint);
    return {};
  } catch (const CorruptError& error) {
    return error.what();
  }
}

void add_line(std::string& text, const std::string& line) {
  if (!line.empty()) text += fmt::format("{}{}", text.empty() ? "" : "\n", line);
}

void throw_damage(const std::string& damage, const std::filesystem::path& path) {
  if (damage.empty()) return;
  std::fflush(stdout);  // the list comes before what is said of it
  throw CorruptError(damage, path.string(), 0);
}

double mebibytes(std::uint64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

}  // namespace

int list_checkpoints(const std::filesystem::path& path, bool verify) {
  PosixFiles files;
  const auto set_aside = checkpoint::set_aside_steps(files, holder(files, path));
  std::string damage;
  for (const auto& summary : set_aside.empty() ? summaries(files, path) : found_in(files, path)) {
    std::string judgement = summary.complete ? "not verified (manifest and file sizes are right)" : summary.problem;
    if (verify) {
      const std::string found = damage_of(files, summary.path);
      judgement = found.empty() ? "whole, every byte is as written" : found;
      add_line(damage, found);
    }
    fmt::print("{}  step {}  {} tokens  {:.1f} MiB  {}\n", summary.path.string(), summary.step, summary.tokens,
               mebibytes(summary.size_bytes), judgement);
  }
  for (const checkpoint::SetAside& bad : set_aside) {
    fmt::print("{}  step {}  was found damaged and set aside\n", (holder(files, path) / bad.name).string(), bad.step);
  }
  throw_damage(damage, path);
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
    const std::string found = damage_of(files, each);
    fmt::print("{}: {}\n", each.string(), found.empty() ? "every byte is as written" : "damaged");
    add_line(damage, found);
  }
  throw_damage(damage, path);
  return 0;
}

}  // namespace strake::launch
