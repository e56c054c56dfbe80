// What a run writes about itself into its manifest and its checkpoints.
// Threads: the training thread. Errors: AgreedError.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/meta.h"
#include "launch/config.h"
#include "launch/train/open_run.h"
#include "launch/train/run_start.h"
#include "launch/train/train.h"

namespace strake::launch {

// Everything chosen by measurement or derived from the machine, as a JSON object. `peak_flops`: of a rank's device.
std::string choices_of(const OpenRun& run, const RankParts& parts, double peak_flops);

// Collective: manifest.json of this attempt.
void write_run_manifest(const Config& config, const RankParts& parts, const OpenRun& run, const RunStart& start,
                        const std::vector<std::string>& command_line, double peak_flops);

// Of a checkpoint behind `step` steps.
checkpoint::Meta meta_behind(std::int64_t step, const Config& config, const RankParts& parts, const OpenRun& run,
                             const RunStart& start, double peak_flops);

}  // namespace strake::launch
