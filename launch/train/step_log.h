// StepLog: what steps and evaluations leave in the run folder (docs/formats.md): a record of every step on every rank,
// a line in metrics.jsonl on rank 0.
// Threads: the training thread. Errors: IoError, CorruptError.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

#include "checkpoint/checkpointer.h"
#include "launch/run/metrics.h"
#include "launch/run/shared_folder.h"
#include "launch/run/step_numbers.h"
#include "launch/train/trainer.h"
#include "runtime/io/files.h"
#include "runtime/telemetry/step_record.h"

namespace strake::launch {

class StepLog {
 public:
  // Opens the files, or makes them. `peak_flops`: of a rank's device, 0: not known.
  StepLog(Files& files, const Job& job, const SharedFolder& folder, double peak_flops);

  // `loss`: of all ranks.
  void step(const StepReport& report, double loss, const Trainer& trainer);
  // On rank 0 only. The first: what the checkpoint of a step tells of it, whose line was not written.
  void restore(std::int64_t step, std::int64_t attempt, const StepNumbers& numbers);
  void evaluation(std::int64_t step, double loss, std::int64_t tokens);
  void checkpoint(std::int64_t step, const checkpoint::SaveReport& report, std::chrono::duration<double> waited);

 private:
  std::uint64_t run_;
  std::int64_t attempt_;
  int rank_, ranks_;
  std::int64_t tokens_per_step_;
  double flops_per_token_, peak_flops_;
  StepRecordFile records_;
  std::optional<MetricsFile> metrics_;  // rank 0
};

}  // namespace strake::launch
