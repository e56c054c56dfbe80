// RunFolder: the folder of a run, its layout and the rule for starting in it again.
//
//   run.dir/manifest.json          what this attempt is (manifest-0001.json: earlier ones)
//           metrics.jsonl          a line a step and evaluation, from rank 0
//           steps-rank-0003.bin    where the time went, from every rank
//           ckpt/                  checkpoints
//           run.lock               held while an attempt runs
//
// An attempt is one start of the program in this folder; they count from 1. Steps may occur again under a
// later attempt: of redone steps the last one counts.
// Threads: one. Errors: ConfigError for a folder that may not be used, NoCheckpointError, IoError.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <utility>
#include <vector>

#include "checkpoint/folder_lock.h"
#include "launch/config.h"
#include "launch/run/metrics.h"
#include "runtime/io/files.h"

namespace strake::launch {

class RunFolder {
 public:
  // Rank 0, before any other rank touches the folder: makes it if need be, applies `resume` (auto: whatever is there;
  // true: it must hold a run; false: it must be empty) and takes the lock, so that no second run writes here. `log`:
  // lines for people; empty: standard error.
  static RunFolder start(Files& files, const std::filesystem::path& path, Resume resume, checkpoint::Log log = {});

  const std::filesystem::path& path() const { return path_; }
  bool holds_run() const { return attempt_ > 1; }  // before this attempt
  std::int64_t attempt() const { return attempt_; }
  std::uint64_t run() const { return run_; }
  // Of the attempts before: of redone ones the last.
  const std::vector<EvalMetrics>& evaluations() const { return evaluations_; }
  // Who wrote the last line of `step` in metrics.jsonl; 0: nobody.
  std::int64_t attempt_of(std::int64_t step) const;

 private:
  RunFolder() = default;

  std::filesystem::path path_;
  std::int64_t attempt_ = 1;
  std::uint64_t run_ = 0;
  std::vector<EvalMetrics> evaluations_;
  std::vector<std::pair<std::int64_t, std::int64_t>> attempts_;  // step and attempt of its line, by step
  std::unique_ptr<checkpoint::FolderLock> lock_;
};

std::filesystem::path metrics_path(const std::filesystem::path& run_folder);
std::filesystem::path step_record_path(const std::filesystem::path& run_folder, int rank);
std::filesystem::path checkpoint_folder(const std::filesystem::path& run_folder);
// The newest whole checkpoint of the run if GPUs have computed it, else empty. It is asked rather than manifest.json,
// which tells of the last start, whatever became of it: the checkpoint is what a run goes on from, and is checksummed.
std::filesystem::path checkpoint_from_gpus(Files& files, const std::filesystem::path& run_folder);

}  // namespace strake::launch
