// CheckpointPolicy: behind which steps a run keeps a checkpoint: every so many steps or, where nothing is said of them,
// by time; at the end; when it is asked to stop. Rank 0's clock decides for all: a rank acts on time only once all
// know. Threads: a value. Errors: none.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

#include "launch/config.h"
#include "launch/report/progress.h"

namespace strake::launch {

class CheckpointPolicy {
 public:
  using Clock = std::chrono::steady_clock;

  // `newest`: the step of the checkpoint that the run goes on from, if there is one.
  CheckpointPolicy(const Config& config, std::optional<std::int64_t> newest, Clock::time_point now);

  // Time counts from here.
  void begin(Clock::time_point now) { last_save_ = now; }
  // Behind `step` steps? `stopping`: the run ends here because it was asked to.
  bool wanted(std::int64_t step, bool stopping) const;
  // Should the ranks be told that it is time?
  bool due(Clock::time_point now) const;
  // All of them know.
  void all_know() { all_know_ = true; }
  // One is begun, or left out: time counts from here.
  void begun(Clock::time_point now);
  void durable(std::int64_t step) { newest_ = step; }

  // The newest that is durable.
  std::optional<std::int64_t> newest() const { return newest_; }
  // What is to come after `step` steps, for people.
  NextCheckpoint next(std::int64_t step, Clock::time_point now) const;
  // Where checkpoints come by time.
  std::optional<Seconds> interval() const;

 private:
  Config::Checkpoint rules_;
  std::int64_t last_step_;
  bool stops_early_;  // by train.stop_at
  std::optional<std::int64_t> newest_;
  Clock::time_point last_save_;
  bool all_know_ = false;
};

}  // namespace strake::launch
