#include "launch/train/snapshot.h"

#include <fmt/format.h>

#include <bit>
#include <chrono>
#include <cmath>
#include <thread>
#include <utility>
#include <vector>

#include "checkpoint/image_proof.h"
#include "checkpoint/staging.h"
#include "kernels/fingerprint.h"
#include "launch/train/replicas.h"
#include "runtime/base/error.h"

namespace strake::launch {

Snapshot::Snapshot(Device& device, Stream& compute, Stream& copy_out, comm::Communicator& communicator,
                   comm::Control& control, Files& files, checkpoint::Options options, std::vector<Replica> replicas,
                   TensorTable table, Tensor norm, Memory memory)
    : device_(device),
      compute_(compute),
      communicator_(communicator),
      replicas_(std::move(replicas)),
      norm_(std::move(norm)),
      norm_told_(reserve_norm(memory, norm_.dtype())),
      looked_at_(device.make_event("weights looked at")),
      checkpointer_(files, control, device, copy_out, memory.state, std::move(table), std::move(options)) {
  if (control.size() == 1) return;
  fingerprints_ = reserve_fingerprints(memory, replicas_.size());
  told_ = std::make_unique<ScalarMailbox>(reserve_mailbox(memory, replicas_.size()));
}

Tensor Snapshot::reserve_fingerprints(const Memory& memory, std::size_t replicas) {
  return Tensor::reserve(memory.scalars, DType::kI64, {static_cast<std::int64_t>(replicas)});
}

ScalarMailbox Snapshot::reserve_mailbox(const Memory& memory, std::size_t replicas) {
  return {memory.host, DType::kI64, replicas, 1};
}

ScalarMailbox Snapshot::reserve_norm(const Memory& memory, DType norm) { return {memory.host, norm, 1, 1}; }

void Snapshot::reserve(checkpoint::StrategyKind strategy, bool paranoid, std::span<const Replica> replicas,
                       const TensorTable& table, std::span<const checkpoint::PlannedRange> planned, DType norm,
                       int ranks, Memory memory) {
  checkpoint::reserve_staging(memory.state.host, table, planned);
  if (strategy == checkpoint::StrategyKind::kDevice) {
    checkpoint::reserve_shard(*memory.state.device, table, planned);
  }
  if (paranoid) checkpoint::ImageProof::reserve(*memory.state.scalars, memory.state.host, planned.size());
  reserve_norm(memory, norm);
  if (ranks == 1) return;
  reserve_fingerprints(memory, replicas.size());
  reserve_mailbox(memory, replicas.size());
}

void Snapshot::begin(const Event& updated, const checkpoint::Meta& meta) {
  look();
  checkpointer_.look(compute_);
  checkpointer_.begin(updated, meta, [this, step = meta.step](comm::Control& control) {
    await_look();
    require_sound(control, step);
  });
}

// On the compute stream, behind the update: stream order is what keeps the next one from the weights meanwhile.
void Snapshot::look() {
  norm_told_.post(compute_, {"norm of the checkpoint to host", Phase::kCheckpoint}, 0, 0, norm_);
  if (told_ != nullptr) {
    for (std::size_t part = 0; part < replicas_.size(); ++part) {
      const Tensor fingerprint = fingerprints_.flat(static_cast<std::int64_t>(part), 1);
      kernels::fingerprint(compute_, {"fingerprint", Phase::kCheckpoint}, {fingerprint, replicas_[part].flat});
      told_->post(compute_, {"fingerprint to host", Phase::kCheckpoint}, 0, part, fingerprint);
    }
  }
  compute_.record(looked_at_);
  looked_ticket_ = device_.ticket(looked_at_);
}

void Snapshot::await_look() {
  if (checkpointer_.holds() == checkpoint::Holds::kTraining) {
    // Looking orders nothing: the snapshot's own wait for the weights is what makes it right.
    while (!device_.complete(looked_at_)) std::this_thread::sleep_for(std::chrono::microseconds(50));
  } else {
    device_.host_wait(looked_ticket_);
  }
  device_.check();        // events complete on a failed device too
  communicator_.check();  // and behind a reduction that was given up, whose sums are not whole
}

void Snapshot::require_sound(comm::Control& control, std::int64_t step) {
  const double norm = norm_told_.look(0, 0);
  if (told_ != nullptr) {
    // With the norm, so that all ranks find it finite or none does.
    constexpr std::uint64_t kNotFinite = ~std::uint64_t{0};
    std::vector<ReplicaPart> parts{
        {"gradient norm", std::isfinite(norm) ? std::bit_cast<std::uint64_t>(norm) : kNotFinite}};
    for (std::size_t part = 0; part < replicas_.size(); ++part)
      parts.push_back({replicas_[part].name, static_cast<std::uint64_t>(told_->look_integer(0, part))});
    require_equal_replicas(control, step, parts);
  }
  if (!std::isfinite(norm)) {
    throw NonFiniteError(
        fmt::format("the gradient norm of step {} is not finite: training has diverged, and no checkpoint is written. "
                    "Resume from the last one with a lower optimizer.learning_rate",
                    step));
  }
}

}  // namespace strake::launch
