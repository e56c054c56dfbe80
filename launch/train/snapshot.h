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

  // Before memory is taken. `norm`: of the last step's gradient, on the device. All references outlive this object.
  Snapshot(Device& device, Stream& compute, Stream& copy_out, comm::Communicator& communicator, comm::Control& control,
           Files& files, checkpoint::Options options, std::vector<Replica> replicas, TensorTable table, Tensor norm,
           Memory memory);

  // Sets aside what the constructor would for a rank of `ranks` that writes `planned` of `table`, where a run is only
  // planned.
  static void reserve(checkpoint::StrategyKind strategy, bool paranoid, std::span<const Replica> replicas,
                      const TensorTable& table, std::span<const checkpoint::PlannedRange> planned, DType norm,
                      int ranks, Memory memory);

  // Begins to write the state as it is behind what is enqueued on compute; `updated` is recorded behind the last
  // update. What Checkpointer::finish() then throws may be NonFiniteError instead of a checkpoint, if that step's
  // gradient norm is not finite, or DivergenceError if ranks hold different weights or moments.
  void begin(const Event& updated, const checkpoint::Meta& meta);

  checkpoint::Checkpointer& checkpointer() { return checkpointer_; }

 private:
  // Of several ranks, so that each can tell the others what it holds.
  static Tensor reserve_fingerprints(const Memory& memory, std::size_t replicas);
  static ScalarMailbox reserve_mailbox(const Memory& memory, std::size_t replicas);
  static ScalarMailbox reserve_norm(const Memory& memory, DType norm);
  void look();
  void await_look();
  void require_sound(comm::Control& control, std::int64_t step);

  Device& device_;
  Stream& compute_;
  comm::Communicator& communicator_;
  std::vector<Replica> replicas_;
  Tensor norm_;
  ScalarMailbox norm_told_;
  // Where several ranks keep checkpoints.
  Tensor fingerprints_;
  std::unique_ptr<ScalarMailbox> told_;
  Event looked_at_;  // the fingerprints are with the host
  EventTicket looked_ticket_;
  checkpoint::Checkpointer checkpointer_;  // last: its thread uses all of the above
};

}  // namespace strake::launch
