// StepExchange: what ranks tell each other of every finished step. The exchange travels while the next step runs, and
// is read behind that one's launch: nothing waits for it.
//
// Every step is read() and told once, in their order; one exchange is on its way at a time.
// Threads: the training thread. Errors: DeviceError, CommError.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "launch/report/breakdown.h"
#include "launch/train/train.h"
#include "launch/train/trainer.h"

namespace strake::launch {

// A step as all ranks know it.
struct FinishedStep {
  StepReport report;                                     // this rank's
  double loss = 0;                                       // of all ranks
  std::vector<RankStep> times;                           // of each rank
  int stop_signal = 0;                                   // that some rank was sent, 0: none
  int stop_rank = 0;                                     // which: the first of them
  bool checkpoint_due = false;                           // says rank 0's clock
  bool save_ended = false;                               // on every rank
  std::int64_t step() const { return report.step + 1; }  // people and files count from 1
};

// What a rank tells the others beside its step.
struct RankNote {
  int stop_signal = 0;  // that it was sent, 0: none
  bool checkpoint_due = false;
  bool save_ended = false;  // its part of the checkpoint that is being written
};

class StepExchange {
 public:
  // All of them outlive this object.
  StepExchange(const RankParts& parts, const Trainer& trainer) : parts_(parts), trainer_(trainer) {}

  // Waits until the device has ended `step` (from 0). REQUIRES: the step behind it is enqueued, or Trainer::end().
  StepReport read(std::int64_t step) const;
  // Starts telling the others.
  void start(StepReport report, const RankNote& note);
  // What all ranks said about the step told last; nullopt: that was finished already, or none was.
  std::optional<FinishedStep> finish();

 private:
  const RankParts& parts_;
  const Trainer& trainer_;
  std::optional<StepReport> told_;
};

}  // namespace strake::launch
