// The folder of a run's checkpoints: names, listing, setting aside.
//
//   step-00001234             committed: exists only whole
//   step-00001234.tmp-<n>     being written by attempt n
//   .bad-step-00001234        found damaged, kept for a person to look at
//   .trash-step-00001234      being deleted
//   LATEST                    the newest committed name, for people and scripts; never read here
//   lock                      who writes here (folder_lock.h)
//
// Threads: one process works on a folder (FolderLock); listing and verifying may be done by any.
// Errors: IoError, CorruptError.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/manifest.h"
#include "runtime/io/files.h"

namespace strake::checkpoint {

inline constexpr std::string_view kLockName = "lock";

std::string step_name(std::int64_t step);
// nullopt if the name is not exactly what step_name gives.
std::optional<std::int64_t> step_of(std::string_view name);

// Does `work` with a folder that the user has named: "run.dir: runs/a". That it cannot be used (no rights, a file in
// its place) is a ConfigError; a disk that is full or fails stays an IoError.
void use_folder(const std::string& name, const std::function<void()>& work);

// Steps that have a committed folder, newest first. Empty if `directory` does not exist.
std::vector<std::int64_t> committed_steps(Files& files, const std::filesystem::path& directory);
// What was found damaged here and set aside, in the order of names.
struct SetAside {
  std::string name;  // ".bad-step-00001234-2"
  std::int64_t step = 0;
};
std::vector<SetAside> set_aside_steps(Files& files, const std::filesystem::path& directory);

// Manifest of one checkpoint, proven in itself and of the step its folder is named after. IncompatibleCheckpointError
// as parse_manifest; CorruptError if it is missing or damaged.
Manifest read_manifest(Files& files, const std::filesystem::path& checkpoint);

// Removes what dead attempts left: temporary and trash folders. REQUIRES: the lock.
void remove_leftovers(Files& files, const std::filesystem::path& directory);
// Makes and removes a folder here, so that missing rights show at the start and not at the first save.
void require_writable(Files& files, const std::filesystem::path& directory);
// Renames the checkpoint of `step` to `.bad-...` and returns the new name.
std::string set_aside(Files& files, const std::filesystem::path& directory, std::int64_t step);
// What the checkpoint of `step` is called while it is deleted.
std::filesystem::path trash_path(const std::filesystem::path& directory, std::int64_t step);

// For people: what is there, judged by what costs nothing to look at.
struct CheckpointSummary {
  std::filesystem::path path;
  std::int64_t step = 0;
  std::int64_t tokens = 0;
  int world_size = 0;                   // ranks that wrote it
  std::optional<double> held_out_loss;  // if its manifest keeps one
  std::uint64_t size_bytes = 0;         // of all files, by the manifest
  bool complete = false;  // manifest sound, every file there with its size; not whether their bytes are right
  std::string problem;    // why not
};
// Newest first.
std::vector<CheckpointSummary> list_checkpoints(Files& files, const std::filesystem::path& directory);
// Reads every byte, by so many threads. Throws CorruptError naming file and chunk.
Manifest verify_checkpoint(Files& files, const std::filesystem::path& checkpoint, int threads = 1);

}  // namespace strake::checkpoint
