// train_variant: a few steps of a config in one of its variants, from its seed, and what came of them. There is no run
// folder: it is the trainer of a run (launch/train/trainer.h) without what a run keeps.
// Threads: the training thread of each rank; collective.
// Errors: AgreedError for what all ranks know, which leaves them able to go on; what the parts throw, after which this
// rank's job is over: the others are told.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "launch/config.h"
#include "launch/job/job_inputs.h"
#include "launch/train/train.h"
#include "launch/verify/rank_record.h"
#include "launch/verify/variant.h"

namespace strake::launch {

// Where tests reach into a rank. Every member may be empty.
struct VerifyHooks {
  // Puts something around the device that a variant trains on.
  std::function<std::unique_ptr<Device>(Device& device, const Variant& variant, int rank)> wrap_device;
  // And around the communicator, once.
  std::function<std::unique_ptr<comm::Communicator>(std::unique_ptr<comm::Communicator> communicator)>
      wrap_communicator;
};

// `parts.device`: the one that computes. `config`: of the variant's cell, as it was given. `stop_requested`: signal
// number, or 0.
RankRecord train_variant(const Config& config, const Variant& variant, std::int64_t steps, const RankParts& parts,
                         const std::function<int()>& stop_requested, const VerifyHooks& hooks);

}  // namespace strake::launch
