// Retention: which checkpoints of a run's folder stay. One rule, for a run behind each of its saves and for `strake
// ckpt prune`: the newest, those of every so many steps, and the best by held-out loss.
//
// The newest whole one always stays, so that nothing is deleted before a newer one is there.
// Threads: one process works on a folder (FolderLock); judging may be done by any. Errors: IoError.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "checkpoint/failpoint.h"
#include "runtime/io/files.h"

namespace strake::checkpoint {

struct Retention {
  int keep = 2;                 // newest whole ones that stay, >= 1
  std::int64_t keep_every = 0;  // those of steps that are multiples of it stay too; 0: off
  int keep_best = 0;            // so many whole ones with the lowest held-out loss stay too
};

// Why a checkpoint stays, the first that holds; or that it goes.
enum class Fate : std::uint8_t {
  kGoes,
  kNewest,    // of the `keep` newest whole ones
  kNotWhole,  // damaged, and newer than the oldest of those: its run sets it aside
  kSpared,    // the one that this process was loaded from: newer ones were never read back
  kMultiple,
  kBest,
};

struct Judged {
  std::int64_t step = 0;
  Fate fate = Fate::kGoes;
};

// Every committed checkpoint, newest first. Whole is what is so by manifest and sizes. Of equal losses the newer is the
// better; a checkpoint without one is not among the best.
std::vector<Judged> judge(Files& files, const std::filesystem::path& directory, const Retention& rule,
                          std::int64_t spared_step);
// Deletes those of these that go, and syncs. REQUIRES: the lock; a newer checkpoint is durable.
void remove_retired(Files& files, const std::filesystem::path& directory, const std::vector<Judged>& judged,
                    Failpoints* failpoints);

}  // namespace strake::checkpoint
