// OpenRun: what a rank has before its first step, but for weights: tokens, its place in the run folder, and a trainer
// with its memory. Whatever can fail on bad input fails while it is opened, before and while memory is taken.
// Threads: the training thread. Errors: AgreedError, whatever is wrong on whichever rank.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "data/token_source.h"
#include "launch/job/comm_switches.h"
#include "launch/job/job_inputs.h"
#include "launch/job/rank_map.h"
#include "launch/run/shared_folder.h"
#include "launch/train/bucket_choice.h"
#include "launch/train/initial_weights.h"
#include "launch/train/step_log.h"
#include "launch/train/train.h"
#include "launch/train/trainer.h"

namespace strake::launch {

struct OpenRun {
  std::vector<RankDescription> ranks;
  Connection connection;  // between them
  JobInputs inputs;
  std::unique_ptr<data::TokenSource> wrapped_tokens;  // what a hook has put around inputs.train
  std::optional<InitialWeights> initial_weights;      // on rank 0, of a new run that starts from others'
  SharedFolder folder;
  BucketChoice bucket_size;
  checkpoint::StrategyKind checkpoint_strategy = checkpoint::StrategyKind::kSync;
  std::unique_ptr<StepLog> log;
  std::unique_ptr<Trainer> trainer;
};

// Collective.
OpenRun open_run(const Config& config, const RankParts& parts, const TrainHooks& hooks);

}  // namespace strake::launch
