// SharedFolder: the run folder of a job. Rank 0 has taken it; the others have learnt what it found there, and all see
// one folder.
// Threads: the training thread. Errors: AgreedError, whatever is wrong on whichever rank.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "comm/control.h"
#include "launch/config.h"
#include "launch/run/run_folder.h"
#include "runtime/io/files.h"

namespace strake::launch {

struct SharedFolder {
  std::optional<RunFolder> taken;  // on rank 0
  std::uint64_t run = 0;
  std::int64_t attempt = 1;
  bool holds_run = false;  // before this attempt

  // Of the attempts before, on rank 0.
  std::span<const EvalMetrics> evaluations() const {
    return taken.has_value() ? std::span<const EvalMetrics>(taken->evaluations()) : std::span<const EvalMetrics>();
  }

  // Collective.
  static SharedFolder open(Files& files, comm::Control& control, const Config& config);
};

}  // namespace strake::launch
