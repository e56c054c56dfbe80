// What checkpoints are written by: which strategy (checkpoint/strategy.h), where checkpoint.strategy leaves it open: a
// snapshot on the device where every rank's GPU has room for it, else lazy copies into host memory. On GPUs it is sync
// for now.
// And by how many threads.
//
// Threads: the training thread. Errors: AgreedError.
#pragma once

#include <cstddef>
#include <string>

#include "checkpoint/shard_writer.h"
#include "checkpoint/strategy.h"
#include "launch/config.h"
#include "launch/train/train.h"
#include "launch/train/trainer.h"

namespace strake::launch {

struct StrategyChoice {
  checkpoint::StrategyKind kind = checkpoint::StrategyKind::kSync;
  std::string why;  // for people; empty: the configuration says so
};

// What a plan counts with, which does not know what else is on a GPU.
checkpoint::StrategyKind planned_strategy(CheckpointStrategy wanted);

// For `trainer`, which has planned its memory and not taken it. Collective.
StrategyChoice choose_strategy(CheckpointStrategy wanted, const RankParts& parts, const Trainer& trainer);

// How a rank writes its file. `cores`: that it may keep busy.
checkpoint::WriteOptions write_options(const Config& config, const RankParts& parts, const Trainer& trainer, int cores);

}  // namespace strake::launch
