// What people are told of a run at its start and its end, gathered from the parts that know it.
// Threads: the training thread. Errors: none.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "launch/config.h"
#include "launch/report/breakdown.h"
#include "launch/report/run_report.h"
#include "launch/train/checkpoint_policy.h"
#include "launch/train/open_run.h"
#include "launch/train/run_start.h"
#include "launch/train/train.h"

namespace strake::launch {

StartFacts start_facts(const Config& config, const RankParts& parts, const OpenRun& run, const RunStart& start,
                       double peak_flops);

// What the run still has to do.
Work work_of(const Config& config, const CheckpointPolicy& checkpoints);

EndFacts end_facts(const Config& config, const OpenRun& run, const TrainResult& result,
                   const std::vector<std::string>& command_line);

// Where the time of a step went, in several lines; empty: too few steps.
std::string breakdown_text(const StepBreakdown& breakdown, const RankParts& parts, const OpenRun& run,
                           double peak_flops);

// What to do then. `checkpoint`: the step of the newest.
std::string after_divergence(const Config& config, std::optional<std::int64_t> checkpoint);

}  // namespace strake::launch
