// Saves: the checkpoint that a run is writing, if there is one: begun behind its step, told of when all ranks know how
// it went, waited for where it must be. One at a time: what is due while it is written waits, or is left out.
//
// Threads: the training thread. Errors: AgreedError for what went wrong with a checkpoint on any rank, at the first
// step behind which all ranks know; CommError and DeviceError, which some ranks alone may meet.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

#include "checkpoint/meta.h"
#include "launch/config.h"
#include "launch/report/live_view.h"
#include "launch/train/checkpoint_policy.h"
#include "launch/train/open_run.h"
#include "launch/train/train.h"

namespace strake::launch {

class Saves {
 public:
  // All of them outlive this object. REQUIRES: the run's trainer keeps checkpoints.
  Saves(const Config& config, const RankParts& parts, OpenRun& run, CheckpointPolicy& policy, LiveView& view);

  // What is being written is waited for so long, however often it is in the way; longer where checkpoints are further
  // apart.
  static constexpr Seconds kLeastPatience{10};

  // Shorter waits for the one before are in the files only.
  static constexpr Seconds kWorthALine{1};

  // Is nothing being written, so that a checkpoint behind `step` can be? Waits for the one before as checkpoint.if_busy
  // says, `last`: until it is durable. False: this one is left out. Collective.
  bool make_room(std::int64_t step, bool last);
  // Begins one behind the last step enqueued; `last`: and waits until it is durable. REQUIRES: make_room().
  void begin(const checkpoint::Meta& meta, bool last);

  // Has this rank done its part of what is being written? False: nothing is. Waits for nothing.
  bool ended() const;
  // Throws what only this rank has met in it.
  void check() { trainer_.checkpointer().check(); }
  // Waits until it is durable, if anything is being written. All ranks are here, and no one calls begin() before.
  void finish() { finish(false); }

 private:
  using Clock = std::chrono::steady_clock;

  // `stood_still`: since the call, training did nothing else.
  void finish(bool stood_still);

  void say_busy(std::int64_t step, Seconds interval, Seconds waited, bool left_out);

  const Config& config_;
  const RankParts& parts_;
  Trainer& trainer_;
  StepLog& log_;
  CheckpointPolicy& policy_;
  LiveView& view_;
  std::optional<std::int64_t> writing_;  // behind which step
  Clock::time_point begun_{};
  Seconds in_the_way_{0};  // how long that has been waited for
  Seconds waited_{0};      // before it began, for the one before
  std::int64_t busy_ = 0;  // how often one was due too early
};

}  // namespace strake::launch
