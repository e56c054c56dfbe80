#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <optional>

#include "checkpoint/directory.h"
#include "launch/commands/commands.h"
#include "launch/run/run_folder.h"
#include "runtime/base/error.h"
#include "runtime/io/files.h"

namespace strake::launch {
namespace {

// What people name: a checkpoint, the folder that holds checkpoints, or the run folder above it.
std::optional<std::int64_t> step_named(const std::filesystem::path& path) {
  // "runs/a/ckpt/step-00000005/" ends in an empty name.
  const std::filesystem::path name = path.has_filename() ? path.filename() : path.parent_path().filename();
  return checkpoint::step_of(name.string());
}

std::filesystem::path holder(Files& files, const std::filesystem::path& path) {
  if (step_named(path) && files.is_directory(path)) {
    const std::filesystem::path folder = (path.has_filename() ? path : path.parent_path()).parent_path();
    return folder.empty() ? "." : folder;
  }
  return files.is_directory(checkpoint_folder(path)) ? checkpoint_folder(path) : path;
}

std::vector<checkpoint::CheckpointSummary> found_in(Files& files, const std::filesystem::path& path) {
  auto found = checkpoint::list_checkpoints(files, holder(files, path));
  if (const auto step = step_named(path)) std::erase_if(found, [&](const auto& each) { return each.step != *step; });
  return found;
}

std::vector<checkpoint::SetAside> set_aside_in(Files& files, const std::filesystem::path& path) {
  if (step_named(path)) return {};
  return checkpoint::set_aside_steps(files, holder(files, path));
}

std::vector<checkpoint::CheckpointSummary> summaries(Files& files, const std::filesystem::path& path) {
  auto found = found_in(files, path);
  if (found.empty()) {
    if (const auto bad = set_aside_in(files, path); !bad.empty()) {
      throw NoCheckpointError(
          fmt::format("{}: no whole checkpoint is left: {} found damaged and set aside ({}); restore one from a copy",
                      path.string(), bad.size() == 1 ? "the one here was" : fmt::format("all {} were", bad.size()),
                      bad.back().name));
    }
    throw NoCheckpointError(fmt::format("{}: no checkpoint here; give a run folder or its ckpt folder", path.string()));
  }
  return found;
}

// What verifying several checkpoints has found. All are judged before the first damage is reported: one bad checkpoint
// does not hide the state of the others.
class Findings {
 public:
  // Reads every byte of one; empty: it is whole.
  std::string judge(Files& files, const std::filesystem::path& checkpoint) {
    try {
      checkpoint::verify_checkpoint(files, checkpoint);
      return {};
    } catch (const CorruptError& error) {
      damage_ += fmt::format("{}{}", damage_.empty() ? "" : "\n", error.what());
      return error.what();
    } catch (const Error& error) {  // it cannot be read, which is not damage
      if (!other_) other_ = std::current_exception();
      return error.what();
    }
  }
  // Behind the list of all.
  void report(const std::filesystem::path& path) const {
    std::fflush(stdout);
    if (!damage_.empty()) throw CorruptError(damage_, path.string(), 0);
    if (other_) std::rethrow_exception(other_);
  }

 private:
  std::string damage_;
  std::exception_ptr other_;
};

double mebibytes(std::uint64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

}  // namespace

int list_checkpoints(const std::filesystem::path& path, bool verify) {
  PosixFiles files;
  const auto set_aside = set_aside_in(files, path);
  Findings findings;
  for (const auto& summary : set_aside.empty() ? summaries(files, path) : found_in(files, path)) {
    std::string judgement = summary.complete ? "not verified (manifest and file sizes are right)" : summary.problem;
    if (verify) {
      const std::string found = findings.judge(files, summary.path);
      judgement = found.empty() ? "whole, every byte is as written" : found;
    }
    fmt::print("{}  step {}  {} tokens  {:.1f} MiB  {}\n", summary.path.string(), summary.step, summary.tokens,
               mebibytes(summary.size_bytes), judgement);
  }
  for (const checkpoint::SetAside& bad : set_aside) {
    fmt::print("{}  step {}  was found damaged and set aside\n", (holder(files, path) / bad.name).string(), bad.step);
  }
  findings.report(path);
  return 0;
}

int verify_checkpoints(const std::filesystem::path& path) {
  PosixFiles files;
  std::vector<std::filesystem::path> paths;
  if (step_named(path)) {
    paths.push_back(path);
  } else {
    for (const auto& summary : summaries(files, path)) paths.push_back(summary.path);
  }
  Findings findings;
  for (const auto& each : paths) {
    const std::string found = findings.judge(files, each);
    fmt::print("{}\n", found.empty() ? fmt::format("{}: every byte is as written", each.string()) : found);
  }
  findings.report(path);
  return 0;
}

}  // namespace strake::launch
