// RankRun: the training loop of one rank: step, read the past step, checkpoint, evaluate, stop.
//
// While the device computes step k the host reads step k - 1 and starts the exchange of its numbers between
// ranks; it reads that exchange while step k + 1 runs. So the host is a step ahead of the device and nothing
// waits for control.
// Threads: the training thread. Errors: AgreedError for what all ranks know; what the parts throw.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "launch/config.h"
#include "launch/report/breakdown.h"
#include "launch/report/live_view.h"
#include "launch/train/checkpoint_policy.h"
#include "launch/train/held_out_losses.h"
#include "launch/train/open_run.h"
#include "launch/train/run_start.h"
#include "launch/train/saves.h"
#include "launch/train/step_exchange.h"
#include "launch/train/train.h"
#include "launch/train/trainer.h"

namespace strake::launch {

class RankRun {
 public:
  // `start`: where resume_or_initialize() has put `run`. All references outlive this object.
  RankRun(const Config& config, const RankParts& parts, const TrainHooks& hooks,
          const std::vector<std::string>& command_line, LiveView& view, OpenRun& run, const RunStart& start);

  // From the first step of this attempt to what is said at its end. Once.
  TrainResult train();

 private:
  void loop(std::int64_t last);
  void enqueue(std::int64_t step);
  void finish_last_steps();
  // Waits for the device to end `step`, and starts telling the others of it.
  void start_exchange(std::int64_t step);
  // What all ranks said of the step told last, if that was not read yet: into files, to people, into the result.
  void finish_exchange();
  // `last`: nothing is trained behind it, so it is waited for.
  void save(std::int64_t step, bool last);
  // `writes`: into metrics.jsonl too.
  void evaluate(std::int64_t step, bool writes);

  int asked_to_stop() const;  // the signal, 0: none
  bool all_agree_to_stop();   // before the first step; collective

  static constexpr std::int64_t kWarmupSteps = 3;  // not part of the breakdown

  const Config& config_;
  const RankParts& parts_;
  const TrainHooks& hooks_;
  const std::vector<std::string>& command_line_;
  LiveView& view_;
  OpenRun& run_;
  Trainer& trainer_;
  const RunStart start_;
  CheckpointPolicy checkpoints_;
  Saves saves_;
  HeldOutLosses held_out_;
  StepExchange exchange_;
  StepBreakdown breakdown_;
  int stop_rank_ = 0;  // that was asked first
  TrainResult result_;
};

}  // namespace strake::launch
