// Algorithms that are chosen by timing, before memory is taken: by rank 0, once a run. A resumed run takes what its
// checkpoint says, so that it goes on as it began; another takes what runs before it have kept (kernel_cache.h). Only
// what is new is timed. Where choices must repeat (train.deterministic) nothing is timed, read or kept. Threads: the
// training thread. Errors: AgreedError.
#pragma once

#include "launch/config.h"
#include "launch/train/train.h"

namespace strake::launch {

// Collective; after planning, which meets the kernels.
void choose_kernels(const Config& config, const RankParts& parts);

}  // namespace strake::launch
