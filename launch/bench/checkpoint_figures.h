// CheckpointFigures: what `strake bench checkpoint` says, computed from the lines that its runs left in metrics.jsonl.
// Pure functions of values; the JSON is documented in docs/formats.md.
//
// Of a save behind step s, over the `window` steps that begin with s, which the call belongs to:
//   stall         what the compute stream stood still for: the call, the update's wait for the copies, the save before.
//   A
//                 call may return later than that: it begins while the step before still runs
//   interference  signed sum of (step time - undisturbed median), minus the stall: what the steps lost, or won, besides
// Undisturbed are the run's steps outside of every window, once what was written is durable; a run that has none is
// compared with the run without checkpoints of the same repeat. All times are rank 0's. Threads: values.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "launch/run/metrics.h"
#include "runtime/telemetry/spread.h"

namespace strake::launch {

// How a run is laid out: `saves` that count, `every` steps apart, behind one that does not (memory and files are new to
// it) and before as many steps without.
struct CheckpointBlocks {
  std::int64_t every = 40;
  std::int64_t saves = 5;

  std::int64_t window() const { return every - 1 < kWindow ? every - 1 : kWindow; }
  // Of a run, whose last step keeps none.
  std::int64_t steps() const { return (saves + 2) * every - 1; }
  // Behind step `step`, from 1?
  bool counted(std::int64_t step) const { return step % every == 0 && step > every && step <= (saves + 1) * every; }

  static constexpr std::int64_t kWindow = 20;  // steps
};

// One run: a strategy in a folder, or none at all.
struct CheckpointRun {
  std::string strategy;  // "none": without checkpoints
  std::string folder;
  std::int64_t repeat = 0;
  Metrics metrics;
  std::uint64_t bytes = 0;                 // of a checkpoint, all ranks' files
  std::optional<double> cold_load_s = {};  // not where the file system is memory
  std::optional<double> warm_load_s = {};  // from the page cache
};

struct SaveCost {
  double stall_ms = 0, interference_ms = 0;
  double waited_ms = 0, call_ms = 0, fence_ms = 0;          // what the stall is made of
  double returned_ms = 0, snapshot_ms = 0, durable_ms = 0;  // since the call
};

// Of each save that counts. `undisturbed_ms`: of a step.
std::vector<SaveCost> save_costs(const CheckpointBlocks& blocks, const Metrics& metrics, double undisturbed_ms);
// The median; nullopt: the run has no such step.
std::optional<double> undisturbed_step_ms(const CheckpointBlocks& blocks, const Metrics& metrics);

// A mean with its two-sided 95 % interval of Student's t; infinite for one sample.
struct Interval {
  double mean = 0, half = 0;
};
Interval interval_of(std::span<const double> samples);

// One strategy in one folder, over all repeats.
struct CheckpointRow {
  std::string strategy, folder;
  double step_ms = 0;  // undisturbed
  // Over saves; of "none" over the steps that would have kept one: what the figures are of nothing.
  Spread stall_ms, interference_ms;
  Interval lost_ms;               // stall + interference
  double interference_share = 0;  // of the window's steps, at the median
  // What follows is of saves: "none" has none.
  Spread call_ms, fence_ms, waited_ms, returned_ms, snapshot_ms, durable_ms;
  double write_bytes_per_s = 0;                    // from the snapshot until it is durable: all ranks, syncs included
  std::optional<double> cold_load_s, warm_load_s;  // medians
};

// When to keep one, if the machine fails once in `mtbf_s`, by Young's formula with Daly's terms: a save costs training
// lost_s, becomes one `durable_s` later, and a start costs restart_s besides loading. The expected loss is
// lost/interval + (interval/2 + durable + restart + load) / mtbf, smallest at sqrt(2 lost mtbf), but never more often
// than a save takes. (Young 1974, Daly 2006.)
struct CheckpointAdvice {
  double mtbf_s = 0, interval_s = 0;
  double waste = 0;  // part of the time, 0..1 and more
};
CheckpointAdvice advise(double lost_s, double durable_s, double load_s, double restart_s, double mtbf_s);

struct CheckpointJob {
  CheckpointBlocks blocks;
  std::int64_t repeats = 0, ranks = 0;
  std::string device;
  std::vector<double> mtbf_s;
  double restart_s = 0;
};

struct CheckpointFigures {
  CheckpointJob job;
  std::uint64_t bytes = 0;          // of a checkpoint
  std::vector<CheckpointRow> rows;  // "none" first, then as they were asked for
  // Of each row for each of job.mtbf_s; of "none": empty.
  std::vector<std::vector<CheckpointAdvice>> advice;
};

// REQUIRES: `runs` are job.repeats of each row, in the order of rows and repeats.
CheckpointFigures figures_of(const CheckpointJob& job, std::vector<CheckpointRun> runs);

nlohmann::ordered_json to_json(const CheckpointFigures& figures);
// For people; no newline at the end.
std::string table(const CheckpointFigures& figures);

}  // namespace strake::launch
