// Snapshot: what a checkpoint keeps of a trainer, and the checks that it is worth keeping.
//
// This version's is synchronous: the step waits until the checkpoint is durable. An asynchronous one changes this
// class, and adds one wait: the optimizer behind the snapshot's copy. Threads: the training thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "checkpoint/checkpointer.h"
#include "checkpoint/shard_plan.h"
#include "comm/communicator.h"
#include "comm/control.h"
#include "models/parameters/parameters.h"
#include "runtime/device/device.h"
#include "runtime/device/param_spec.h"
#include "runtime/device/scalar_mailbox.h"

namespace strake::launch {

class Snapshot {
 public:
  using Replica = models::Parameters::Replica;
  struct Memory {
    Arena &scalars, &host;
  };

  // Before memory is taken. All references outlive this object.
  Snapshot(Device& device, Stream& compute, Stream& copy_out, comm::Communicator& communicator, comm::Control& control,
           Files& files, checkpoint::Options options, std::vector<Replica> replicas, TensorTable table, Memory memory);

  // Sets aside what the constructor would for a rank of `ranks` that writes `planned` of `table`, where a run is only
  // planned.
  static void reserve(std::span<const Replica> replicas, const TensorTable& table,
                      std::span<const checkpoint::PlannedRange> planned, int ranks, Memory memory);

  // Writes the state as it is behind what is enqueued on compute; `updated` is recorded behind the last update. `norm`
  // says the last step's gradient norm, once it is on the host. Blocks. Throws NonFiniteError instead of writing if
  // that is not finite, DivergenceError if ranks hold different weights or moments.
  checkpoint::SaveReport save(const Event& updated, std::int64_t step, const std::function<double()>& norm,
                              const checkpoint::Meta& meta);

  checkpoint::Checkpointer& checkpointer() { return checkpointer_; }

 private:
  // Of several ranks, so that each can tell the others what it holds.
  static Tensor reserve_fingerprints(const Memory& memory, std::size_t replicas);
  static ScalarMailbox reserve_mailbox(const Memory& memory, std::size_t replicas);
  void look();
  void require_sound(std::int64_t step, double norm);

  Device& device_;
  Stream& compute_;
  comm::Communicator& communicator_;
  comm::Control& control_;
  std::vector<Replica> replicas_;
  checkpoint::Checkpointer checkpointer_;
  // Where several ranks keep checkpoints.
  Tensor fingerprints_;
  std::unique_ptr<ScalarMailbox> told_;
  Event looked_at_;  // the fingerprints are with the host
};

}  // namespace strake::launch
