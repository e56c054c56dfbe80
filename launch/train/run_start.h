// RunStart: where in its run an attempt begins.
// Threads: the training thread. Errors: AgreedError; CommError and DeviceError, which some ranks alone may meet.
#pragma once

#include <cstdint>
#include <optional>

#include "launch/config.h"
#include "launch/train/open_run.h"
#include "launch/train/train.h"

namespace strake::launch {

struct RunStart {
  std::int64_t step = 0;                // steps done before
  std::int64_t sample = 0, tokens = 0;  // trained on before: an earlier attempt may have had another batch
  bool same_held_out = false;           // as in the attempt that wrote the checkpoint, so that losses compare
  std::optional<WeightsOrigin> origin;  // on rank 0: where the run's first weights came from, if not from its seed

  // After `steps_done` steps of the run, over all attempts.
  std::int64_t samples_behind(std::int64_t steps_done, const Config& config) const {
    return sample + (steps_done - step) * config.train.global_batch;
  }
  std::int64_t tokens_behind(std::int64_t steps_done, const Config& config) const {
    return tokens + (steps_done - step) * config.train.global_batch * config.train.sequence;
  }
};

// Collective: gives the trainer the weights and moments of the newest checkpoint, or those that a run begins with, and
// seeks the first sample.
RunStart resume_or_initialize(const Config& config, const RankParts& parts, OpenRun& run);

}  // namespace strake::launch
