#include "launch/train/snapshot.h"

#include <fmt/format.h>

#include <bit>
#include <chrono>
#include <cmath>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "checkpoint/image_proof.h"
#include "checkpoint/staging.h"
#include "kernels/fingerprint.h"
#include "launch/run/step_numbers.h"
#include "launch/train/replicas.h"
#include "runtime/base/error.h"

namespace strake::launch {
namespace {

// Values of the mailbox.
constexpr std::size_t kToldLoss = 0, kToldNorm = 1, kToldValues = 2;

}  // namespace

Snapshot::Snapshot(Device& device, Stream& compute, Stream& copy_out, comm::Communicator& communicator,
                   comm::Control& control, Files& files, checkpoint::Options options, std::vector<Replica> replicas,
                   TensorTable table, Measured measured, Memory memory)
    : device_(device),
      compute_(compute),
      communicator_(communicator),
      replicas_(std::move(replicas)),
      measured_(std::move(measured)),
      measured_told_(reserve_measured(memory, measured_.norm.dtype())),
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

ScalarMailbox Snapshot::reserve_measured(const Memory& memory, DType measured) {
  return {memory.host, measured, kToldValues, 1};
}

void Snapshot::reserve(checkpoint::StrategyKind strategy, bool paranoid, std::span<const Replica> replicas,
                       const TensorTable& table, std::span<const checkpoint::PlannedRange> planned, DType measured,
                       int ranks, Memory memory) {
  checkpoint::reserve_staging(memory.state.host, table, planned);
  if (strategy == checkpoint::StrategyKind::kDevice) {
    checkpoint::reserve_shard(*memory.state.device, table, planned);
  }
  if (paranoid) checkpoint::ImageProof::reserve(*memory.state.scalars, memory.state.host, planned.size());
  reserve_measured(memory, measured);
  if (ranks == 1) return;
  reserve_fingerprints(memory, replicas.size());
  reserve_mailbox(memory, replicas.size());
}

void Snapshot::begin(const Event& updated, const checkpoint::Meta& meta, double learning_rate) {
  look();
  checkpointer_.look(compute_);
  checkpointer_.begin(updated, meta, [this, learning_rate](comm::Control& control, checkpoint::Meta& kept) {
    await_look();
    require_sound(control, kept.step);
    kept.step_metrics = to_json(
        {.loss = whole_loss(control), .learning_rate = learning_rate, .grad_norm = measured_told_.look(0, kToldNorm)});
  });
}

// On the compute stream, behind the update: stream order is what keeps the next one from the weights meanwhile.
void Snapshot::look() {
  measured_told_.post(compute_, {"loss of the checkpoint to host", Phase::kCheckpoint}, 0, kToldLoss, measured_.loss);
  measured_told_.post(compute_, {"norm of the checkpoint to host", Phase::kCheckpoint}, 0, kToldNorm, measured_.norm);
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
  const double norm = measured_told_.look(0, kToldNorm);
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

// Added up in the order of ranks, as StepExchange does: the same bits as in the step's line.
double Snapshot::whole_loss(comm::Control& control) const {
  double loss = 0;
  for (const std::string& share : control.all_gather(fmt::format("{}", measured_told_.look(0, kToldLoss))))
    loss += std::stod(share);
  return loss;
}

}  // namespace strake::launch
