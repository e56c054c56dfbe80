#include "launch/run/checkpoint_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "checkpoint/directory.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/shard_file.h"
#include "launch/run/run_folder.h"
#include "runtime/base/check.h"
#include "runtime/base/log.h"

namespace strake::launch {
namespace {

namespace fs = std::filesystem;

CorruptError named_is_damaged(const CorruptError& why, const fs::path& folder) {
  return CorruptError(
      fmt::format("{}; this checkpoint is damaged: name {} to use the newest whole one (`strake ckpt list "
                  "--verify` tells which are)",
                  why.what(), folder.empty() ? "its folder" : folder.string()),
      why.path, why.offset_bytes);
}

}  // namespace

CheckpointSource::CheckpointSource(Files& files, fs::path path, checkpoint::Log log)
    : files_(files), path_(std::move(path)), log_(std::move(log)) {
  if (!log_) log_ = [](std::string_view line) { Logger().write(LogLevel::kWarning, line); };
  const fs::path last = path_.has_filename() ? path_ : path_.parent_path();  // "step-00000005/" ends in an empty name
  if (const auto step = checkpoint::step_of(last.filename().string()); step && files_.is_directory(last)) {
    named_ = true;
    folder_ = last.parent_path();
    steps_ = {*step};
    return;
  }
  folder_ = files_.is_directory(checkpoint_folder(path_)) ? checkpoint_folder(path_) : path_;
  if (files_.is_directory(folder_)) {
    steps_ = checkpoint::committed_steps(files_, folder_);
    std::reverse(steps_.begin(), steps_.end());
    for (const checkpoint::SetAside& bad : checkpoint::set_aside_steps(files_, folder_)) {
      passed_over_.push_back({bad.step, fmt::format("set aside as {}", bad.name)});
    }
  }
  if (!steps_.empty() || !passed_over_.empty()) return;
  if (files_.exists(path_ / checkpoint::kSafetensorsName)) {
    throw NoCheckpointError(fmt::format(
        "{}: no checkpoint is in it, but {}; make a run of it (strake import FOLDER --run RUN), and name that",
        path_.string(), checkpoint::kSafetensorsName));
  }
  throw NoCheckpointError(fmt::format("{}: {}; name a run folder or a checkpoint's folder", path_.string(),
                                      files_.exists(path_) ? "no checkpoint is in it" : "does not exist"));
}

checkpoint::FoundCheckpoint CheckpointSource::next() {
  while (!steps_.empty()) {
    given_ = steps_.back();
    steps_.pop_back();
    seen_.insert(given_);
    checkpoint::FoundCheckpoint found{folder_ / checkpoint::step_name(given_), {}};
    try {
      found.manifest = checkpoint::read_manifest(files_, found.path);
      checkpoint::check_sizes(files_, found.path, found.manifest);
    } catch (const CorruptError& error) {
      damaged(error);
      continue;
    }
    for (PassedOver& newer : passed_over_) {
      if (newer.step <= given_ || std::exchange(newer.said, true)) continue;
      log_(fmt::format("{}: the checkpoint of step {} is damaged ({}); takes that of step {}, {} steps older",
                       path_.string(), newer.step, newer.why, given_, newer.step - given_));
    }
    return found;
  }
  STRAKE_CHECK(!passed_over_.empty(), "what was given last is damaged");
  const PassedOver newest = *std::max_element(passed_over_.begin(), passed_over_.end(),
                                              [](const PassedOver& a, const PassedOver& b) { return a.step < b.step; });
  throw NoCheckpointError(
      fmt::format("{}: none of its checkpoints is whole; that of step {}: {}; restore one from a copy", path_.string(),
                  newest.step, newest.why));
}

void CheckpointSource::damaged(const CorruptError& why) {
  if (named_) throw named_is_damaged(why, folder_);
  if (!files_.exists(folder_ / checkpoint::step_name(given_))) {
    steps_ = checkpoint::committed_steps(files_, folder_);
    std::erase_if(steps_, [&](std::int64_t step) { return seen_.contains(step); });
    std::reverse(steps_.begin(), steps_.end());
    if (!steps_.empty()) return;
  }
  passed_over_.push_back({given_, why.what()});
}

}  // namespace strake::launch
