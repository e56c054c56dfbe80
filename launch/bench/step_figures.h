// StepFigures: what `strake bench step` says, computed from what every rank measured. Pure functions of values; the
// JSON is documented in docs/formats.md.
//
// A step's time is the mean over ranks of its wall time on the compute stream, from its first mark to the next step's
// first mark: steps lie end to end, so nothing falls between them. Medians of classes are taken one by one and need not
// add up to the median step.
// Threads: values.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "launch/bench/gpu_sampler.h"
#include "launch/report/breakdown.h"
#include "launch/report/comm_timeline.h"
#include "launch/train/memory_table.h"
#include "runtime/base/check.h"
#include "runtime/telemetry/spread.h"

namespace strake::launch {

// The object of docs/formats.md; and for people, in a line.
nlohmann::ordered_json to_json(const GpuLoad& load);
std::string describe(const GpuLoad& load);

// What one rank measured; travels as text.
struct RankMeasurement {
  int rank = 0;
  std::string host;
  std::string device;
  std::vector<RankStep> steps;          // the measured ones, all repeats, in order
  std::vector<StepTimeline> timelines;  // of the same steps
  std::size_t device_memory_bytes = 0;  // planned and taken by the trainer
  MemoryTable memory;                   // behind the last step
  std::optional<GpuLoad> gpu;           // while they ran

  std::string to_text() const;
  // REQUIRES: made by to_text.
  static RankMeasurement from_text(const std::string& text);
};

// Of each step one number, the mean over ranks, which have measured the same steps.
template <typename Number>
std::vector<double> mean_over_ranks(std::span<const RankMeasurement> ranks, Number number) {
  std::vector<double> out(ranks.front().steps.size(), 0);
  for (const RankMeasurement& rank : ranks) {
    STRAKE_CHECK(rank.steps.size() == out.size(), "ranks measured different steps");
    for (std::size_t i = 0; i < out.size(); ++i) {
      out[i] += std::invoke(number, rank.steps[i]) / static_cast<double>(ranks.size());
    }
  }
  return out;
}

// What was measured, the same on every rank.
struct StepJob {
  std::int64_t warmup = 0, steps = 0, repeats = 0;  // steps: of each repeat
  std::int64_t tokens_per_step = 0;                 // of all ranks
  bool stub_comm = false;  // nothing travelled between ranks: nothing is known of communication
  double flops_per_token = 0;
  double peak_flops = 0;  // of a rank's device; 0: not known
  std::string peak_name;
  CommBytes comm_bytes;  // of a step
};

struct StepFigures {
  StepJob job;
  std::vector<RankMeasurement> ranks;
  std::int64_t hosts = 0;

  Spread step_ms;                  // of all measured steps; but see median_ms
  std::vector<double> repeats_ms;  // median of each repeat
  double median_ms = 0;            // median of these
  double tokens_per_s = 0;         // all ranks, at median_ms
  std::optional<double> mfu;
  std::array<double, kStepClasses> class_ms{};  // medians of the mean over ranks
  double comm_busy_ms = 0;
  double exposed_at_end_ms = 0;             // RankStep::exposed_at_end_ms
  std::optional<double> comm_hidden_share;  // none where nothing is communicated
  CommTimeline timeline;
  // Over all GPUs; absent if any of them does not tell.
  std::optional<double> power_w, energy_per_token_j;
  bool throttled = false;

  double of(StepClass step_class) const { return class_ms[static_cast<std::size_t>(step_class)]; }
};

// REQUIRES: every rank measured job.steps * job.repeats > 0 steps; ranks in order.
StepFigures figures_of(const StepJob& job, std::vector<RankMeasurement> ranks);

nlohmann::ordered_json to_json(const StepFigures& figures);
// For people; no newline at the end.
std::string table(const StepFigures& figures);

}  // namespace strake::launch
