// Snapshot: what a checkpoint keeps of a trainer, and the checks that it is worth keeping: every rank holds the same,
// and it is finite. They are enqueued with the snapshot, and looked at by the thread that writes.
//
// Threads: the training thread, but for the proof.
#pragma once

#include <cstdint>
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
    checkpoint::SaveMemory state;
  };

  // What the last step has measured, on the device.
  struct Measured {
    Tensor loss;  // this rank's share
    Tensor norm;  // of the gradient
  };

  // Before memory is taken. All references outlive this object.
  Snapshot(Device& device, Stream& compute, Stream& copy_out, comm::Communicator& communicator, comm::Control& control,
           Files& files, checkpoint::Options options, std::vector<Replica> replicas, TensorTable table,
           Measured measured, Memory memory);

  // Sets aside what the constructor would for a rank of `ranks` that writes `planned` of `table`, where a run is only
  // planned.
  static void reserve(checkpoint::StrategyKind strategy, bool paranoid, std::span<const Replica> replicas,
                      const TensorTable& table, std::span<const checkpoint::PlannedRange> planned, DType measured,
                      int ranks, Memory memory);

  // Begins to write the state as it is behind what is enqueued on compute; `updated` is recorded behind the last
  // update, whose learning rate is kept with what the step has measured. What Checkpointer::finish() then throws may be
  // NonFiniteError instead of a checkpoint, if that step's gradient norm is not finite, or DivergenceError if ranks
  // hold different weights or moments.
  void begin(const Event& updated, const checkpoint::Meta& meta, double learning_rate);

  checkpoint::Checkpointer& checkpointer() { return checkpointer_; }

 private:
  // Of several ranks, so that each can tell the others what it holds.
  static Tensor reserve_fingerprints(const Memory& memory, std::size_t replicas);
  static ScalarMailbox reserve_mailbox(const Memory& memory, std::size_t replicas);
  static ScalarMailbox reserve_measured(const Memory& memory, DType measured);
  void look();
  void await_look();
  void require_sound(comm::Control& control, std::int64_t step);
  double whole_loss(comm::Control& control) const;

  Device& device_;
  Stream& compute_;
  comm::Communicator& communicator_;
  std::vector<Replica> replicas_;
  Measured measured_;
  ScalarMailbox measured_told_;
  // Where several ranks keep checkpoints.
  Tensor fingerprints_;
  std::unique_ptr<ScalarMailbox> told_;
  Event looked_at_;  // the fingerprints are with the host
  EventTicket looked_ticket_;
  checkpoint::Checkpointer checkpointer_;  // last: its thread uses all of the above
};

}  // namespace strake::launch
