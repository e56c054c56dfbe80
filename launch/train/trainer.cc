#include "launch/train/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <thread>

#include "kernels/elementwise.h"
#include "kernels/fingerprint.h"
#include "launch/train/replicas.h"
#include "models/initialize.h"
#include "runtime/base/error.h"

namespace strake::launch {
namespace {

constexpr std::size_t kSlots = StepAccount::kSlots;
static_assert(kSlots == static_cast<std::size_t>(comm::GradBuckets::kSlots), "one ring");

// Mailbox values of a step.
constexpr std::size_t kLoss = 0, kGradNorm = 1, kEvalLoss = 2, kMailboxValues = 3;

// Of what every rank holds a copy of: weights, first and second moments.
constexpr std::size_t kReplicaParts = 3;
constexpr const char* kReplicaNames[kReplicaParts] = {"weights", "first moments", "second moments"};

data::LoaderOptions loader_options(const Job& job, std::string name, std::int64_t micro_batches) {
  return {.name = std::move(name),
          .micro_batches = micro_batches,
          .micro_batch = job.config.train.micro_batch,
          .sequence = job.config.train.sequence,
          .rank = job.rank,
          .ranks = job.ranks,
          .vocab = job.shape.vocab};
}

// begin, 3 for the batch, 2 a micro-batch, exposed communication, optimizer, and 2 each for a checkpoint and an
// evaluation.
int marks_of(const Job& job) { return static_cast<int>(2 * job.derived.accumulation) + 10; }

}  // namespace

models::CosineSchedule schedule_of(const Config& config, const Derived& derived) {
  return {.peak = config.optimizer.learning_rate,
          .floor = derived.min_learning_rate,
          .warmup_steps = derived.warmup_steps,
          .total_steps = config.train.steps};
}

struct Trainer::Memory {
  Arena weights{"weights", MemoryKind::kDevice};
  Arena compute_weights{"bf16 weights", MemoryKind::kDevice};
  Arena gradients{"gradients", MemoryKind::kDevice};
  Arena wire{"gradients in transit", MemoryKind::kDevice};
  Arena optimizer{"optimizer state", MemoryKind::kDevice};
  Arena activations{"activations", MemoryKind::kDevice};
  Arena scalars{"scalars", MemoryKind::kDevice};
  Arena input{"input batches", MemoryKind::kDevice};
  Arena workspace{"workspace", MemoryKind::kDevice};
  Arena host{"host staging", MemoryKind::kHost};

  std::vector<Arena*> all() {
    return {&weights,     &compute_weights, &gradients, &wire,      &optimizer,
            &activations, &scalars,         &input,     &workspace, &host};
  }
};

Trainer::Trainer(const Job& job, Device& device, comm::Communicator& communicator, TokenSources sources,
                 const StepPlan* planned)
    : job_(job),
      device_(device),
      communicator_(communicator),
      model_(job.shape, layout_),
      memory_(std::make_unique<Memory>()),
      compute_(device.make_stream("compute", StreamPriority::kNormal)),
      comm_(device.make_stream("comm", StreamPriority::kHigh)),
      copy_in_(device.make_stream("copy-in", StreamPriority::kNormal)),
      copy_out_(device.make_stream("copy-out", StreamPriority::kNormal)),
      activations_(planned == nullptr ? ActivationMemory(memory_->activations)
                                      : ActivationMemory(memory_->activations, planned->activations)),
      schedule_(schedule_of(job.config, job.derived)),
      account_(device, *compute_, marks_of(job)),
      updated_(device.make_event("weights updated")),
      looked_at_(device.make_event("weights looked at")) {
  const bool rounds = job.dtype == DType::kBF16;
  const DType master = rounds ? DType::kF32 : job.dtype;
  const std::int64_t flat_elems = layout_.total_elems();
  weights_ = Tensor::reserve(memory_->weights, master, {flat_elems});
  compute_weights_ = rounds ? Tensor::reserve(memory_->compute_weights, DType::kBF16, {flat_elems}) : weights_;
  gradients_ = Tensor::reserve(memory_->gradients, job.gradient_dtype, {flat_elems});
  first_moment_ = Tensor::reserve(memory_->optimizer, master, {flat_elems});
  second_moment_ = Tensor::reserve(memory_->optimizer, master, {flat_elems});
  for (const OwnedRange& range : layout_.owned()) {
    segments_.push_back({range.flat_begin_elems, range.size_elems, layout_.spec(range.param).weight_decay});
  }
  const DType scalar = master;
  loss_total_ = Tensor::reserve(memory_->scalars, scalar, {1});
  eval_total_ = Tensor::reserve(memory_->scalars, scalar, {1});
  grad_norm_ = Tensor::reserve(memory_->scalars, scalar, {1});
  clip_ = Tensor::reserve(memory_->scalars, scalar, {1});
  norm_block_sums_ = Tensor::reserve(memory_->scalars, DType::kF64, {kernels::norm_blocks(segments_)});
  mailbox_ = std::make_unique<ScalarMailbox>(memory_->host, scalar, kMailboxValues, kSlots);
  initial_staging_ = Tensor::reserve(memory_->host, master, {models::initial_staging_elems(layout_)});

  if (planned != nullptr) {
    memory_->activations.reserve(planned->activation_bytes);
    if (planned->workspace_bytes > 0) {
      workspace_ =
          Tensor::reserve(memory_->workspace, DType::kU8, {static_cast<std::int64_t>(planned->workspace_bytes)});
    }
  }
  model_.reserve(activations_, job.config.train.micro_batch, job.dtype, device.target());
  const auto bucket_bytes = static_cast<std::int64_t>(job.config.comm.bucket_mib * 1024 * 1024);
  // One rank alone sends nothing.
  const DType wire_dtype = communicator.size() > 1 ? job.wire_dtype : job.gradient_dtype;
  comm::BucketPlan bucket_plan = comm::plan_buckets(layout_, wire_dtype, bucket_bytes);
  comm::Wire wire;
  if (wire_dtype != job.gradient_dtype) {
    wire = {Tensor::reserve(memory_->wire, wire_dtype, {bucket_plan.largest_elems()}), kernels::cast};
  }
  buckets_ = std::make_unique<comm::GradBuckets>(
      device, std::move(bucket_plan), layout_, gradients_, communicator, *compute_, *comm_,
      job.config.comm.overlap ? comm::Overlap::kOn : comm::Overlap::kOff, std::move(wire));

  const std::int64_t sequence = job.config.train.sequence;
  train_loader_ = std::make_unique<data::Loader>(
      device, *copy_in_, memory_->host, memory_->input, *sources.train,
      data::SampleOrder::shuffled(static_cast<std::uint64_t>(job.config.run.seed), sources.train->sequences(sequence)),
      loader_options(job, "train", job.derived.accumulation));
  if (sources.val != nullptr) {
    const std::int64_t val_sequences = sources.val->sequences(sequence);
    val_batches_ = evaluation_batches(job.config, job.ranks, val_sequences);
    val_loader_ =
        std::make_unique<data::Loader>(device, *copy_in_, memory_->host, memory_->input, *sources.val,
                                       data::SampleOrder::sequential(val_sequences), loader_options(job, "val", 1));
  }
}

Trainer::~Trainer() = default;

StepPlan Trainer::plan(const Job& job, comm::Communicator& communicator, TokenSources sources, const Device* target) {
  PlanDevice device = target == nullptr ? PlanDevice() : PlanDevice(*target);
  StepPlan plan;
  {
    Trainer trainer(job, device, communicator, sources, nullptr);
    trainer.step(0);
    trainer.end();
    plan.activations = trainer.activations_.blocks();
    plan.activation_bytes = plan_memory(plan.activations, trainer.memory_->activations, device.recording());
    plan.workspace_bytes = device.recording().workspace_bytes(trainer.compute_->index());
  }
  plan.recording = std::move(device.recording());
  return plan;
}

void Trainer::keep_checkpoints(Files& files, comm::Control& control, checkpoint::Options options) {
  checkpointer_ = std::make_unique<checkpoint::Checkpointer>(files, control, device_, *copy_out_, memory_->host,
                                                             state_table(), std::move(options));
  control_ = &control;
  if (control.size() == 1) return;
  fingerprints_ = Tensor::reserve(memory_->scalars, DType::kI64, {kReplicaParts});
  told_fingerprints_ = std::make_unique<ScalarMailbox>(memory_->host, DType::kI64, kReplicaParts, 1);
}

void Trainer::allocate() {
  for (Arena* arena : memory_->all()) arena->allocate(device_);
  if (workspace_.defined()) compute_->set_workspace(workspace_);
}

void Trainer::round_weights() {
  if (job_.dtype == DType::kBF16)
    kernels::cast(*compute_, {"weights to bf16", Phase::kOther}, compute_weights_, weights_);
}

std::optional<checkpoint::Meta> Trainer::load_newest(const std::string& model) {
  std::optional<checkpoint::Meta> meta = checkpointer_->load_newest(model);
  if (meta.has_value()) round_weights();
  return meta;
}

void Trainer::initialize() {
  models::initialize_weights(*compute_, weights_, initial_staging_, layout_,
                             static_cast<std::uint64_t>(job_.config.run.seed));
  round_weights();
}

void Trainer::load_weights(Files& files, const checkpoint::FoundCheckpoint& found) {
  TensorTable table;
  append_to(table, "param/", weights_);
  const Tensor staging(initial_staging_.arena(), initial_staging_.offset_bytes(), DType::kU8,
                       {static_cast<std::int64_t>(initial_staging_.extent_bytes())});
  checkpoint::read_tensors(files, found, table, job_.shape.to_json(), *copy_out_, staging);
  round_weights();
}

void Trainer::seek(std::int64_t next_sample) { train_loader_->seek(next_sample); }

void Trainer::step(std::int64_t step) {
  const auto slot = static_cast<std::size_t>(step) % kSlots;
  const double per_token = 1.0 / static_cast<double>(job_.derived.tokens_per_step);
  const bool planning = device_.kind() == DeviceKind::kPlan;
  account_.begin(step);
  buckets_->use_slot(static_cast<int>(slot));

  account_.mark(StepClass::kHostGap);
  const data::StepBatch batch = planning ? train_loader_->plan_batch() : train_loader_->next();
  account_.mark(StepClass::kDataWait);
  compute_->wait(*batch.ready, {"compute waits for the batch", Hazard::kReadAfterWrite});
  account_.mark(StepClass::kH2d);
  for (const data::MicroBatch& micro : batch.micro_batches) {
    const bool adds = &micro != &batch.micro_batches.front();
    const bool last = &micro == &batch.micro_batches.back();
    // In the last micro-batch gradients become final. RAW inside: communication waits for them.
    models::FlatParams params(layout_, compute_weights_, gradients_, [&](ParamId param) {
      if (last) buckets_->ready(param);
    });
    const models::Pass pass{.compute = *compute_,
                            .params = params,
                            .accumulate = adds ? kernels::Accumulate::kAdd : kernels::Accumulate::kOverwrite};
    model_.forward(pass, micro.tokens);
    // The mean over every token of the step, on all ranks: sums over ranks need no further scaling.
    model_.loss_and_gradient(pass, micro.targets, loss_total_, per_token, per_token, adds);
    account_.mark(StepClass::kForward);
    model_.backward(pass, micro.tokens);
    account_.mark(StepClass::kBackward);
  }
  train_loader_->release(batch, *compute_);  // WAR: copy-in may refill the slot behind this
  compute_->wait(buckets_->reduced(), {"compute waits for reduced gradients", Hazard::kReadAfterWrite});
  account_.mark(StepClass::kExposedComm);
  kernels::gradient_norm(*compute_, {"gradient norm", Phase::kOptimizer}, grad_norm_, clip_, norm_block_sums_,
                         gradients_, segments_, job_.config.optimizer.clip_norm);
  const Config::Optimizer& optimizer = job_.config.optimizer;
  kernels::adamw(*compute_, {"adamw", Phase::kOptimizer}, weights_, first_moment_, second_moment_, gradients_, clip_,
                 segments_,
                 {.learning_rate = schedule_.at(step),
                  .beta1 = optimizer.beta1,
                  .beta2 = optimizer.beta2,
                  .epsilon = optimizer.epsilon,
                  .weight_decay = optimizer.weight_decay,
                  .step = step + 1},
                 job_.dtype == DType::kBF16 ? compute_weights_ : Tensor());
  mailbox_->post(*compute_, {"loss to host", Phase::kOptimizer}, slot, kLoss, loss_total_);
  mailbox_->post(*compute_, {"norm to host", Phase::kOptimizer}, slot, kGradNorm, grad_norm_);
  compute_->record(updated_);
  account_.mark(StepClass::kOptimizer);
  last_step_ = step;
}

// On the compute stream, behind the update: stream order is what keeps the next one from the weights meanwhile.
void Trainer::look_at_state() {
  if (control_->size() > 1) {
    const Tensor* const states[kReplicaParts] = {&weights_, &first_moment_, &second_moment_};
    for (std::size_t part = 0; part < kReplicaParts; ++part) {
      const Tensor fingerprint = fingerprints_.flat(static_cast<std::int64_t>(part), 1);
      kernels::fingerprint(*compute_, {"fingerprint", Phase::kCheckpoint}, fingerprint, *states[part]);
      told_fingerprints_->post(*compute_, {"fingerprint to host", Phase::kCheckpoint}, 0, part, fingerprint);
    }
  }
  compute_->record(looked_at_);
}

void Trainer::require_sound_state() {
  const double norm = mailbox_->look(static_cast<std::size_t>(last_step_) % kSlots, kGradNorm);
  if (control_->size() > 1) {
    // With the norm, so that all ranks find it finite or none does.
    constexpr std::uint64_t kNotFinite = ~std::uint64_t{0};
    std::vector<ReplicaPart> parts{
        {"gradient norm", std::isfinite(norm) ? std::bit_cast<std::uint64_t>(norm) : kNotFinite}};
    for (std::size_t part = 0; part < kReplicaParts; ++part) {
      const std::int64_t fingerprint = told_fingerprints_->look_integer(0, part);
      parts.push_back({kReplicaNames[part], static_cast<std::uint64_t>(fingerprint)});
    }
    require_equal_replicas(*control_, last_step_ + 1, parts);
  }
  if (!std::isfinite(norm)) {
    throw NonFiniteError(
        fmt::format("the gradient norm of step {} is not finite: training has diverged, and no checkpoint is written. "
                    "Resume from the last one with a lower optimizer.learning_rate",
                    last_step_ + 1));
  }
}

checkpoint::SaveReport Trainer::save(const checkpoint::Meta& meta) {
  account_.mark(StepClass::kHostGap);
  look_at_state();
  // Looking orders nothing: the snapshot's own wait for the weights is what makes it right.
  while (!device_.complete(looked_at_)) std::this_thread::sleep_for(std::chrono::microseconds(50));
  device_.check();        // events complete on a failed device too
  communicator_.check();  // and behind a reduction that was given up, whose sums are not whole
  require_sound_state();
  checkpoint::SaveReport report = checkpointer_->save(updated_, meta);
  account_.mark(StepClass::kCheckpoint);
  return report;
}

double Trainer::evaluate() {
  STRAKE_CHECK(val_loader_ != nullptr, "no held-out tokens");
  const bool in_step = last_step_ >= 0;  // not in a run that has no step left to do
  if (in_step) account_.mark(StepClass::kHostGap);
  models::FlatParams params(layout_, compute_weights_, gradients_);
  const models::Pass pass{.compute = *compute_, .params = params, .phase = Phase::kEval};
  val_loader_->seek(0);
  const double per_token = 1.0 / static_cast<double>(held_out_tokens());
  for (std::int64_t i = 0; i < val_batches_; ++i) {
    const data::StepBatch batch = val_loader_->next();
    const data::MicroBatch& micro = batch.micro_batches.front();
    compute_->wait(*batch.ready, {"evaluation waits for the batch", Hazard::kReadAfterWrite});
    model_.forward(pass, micro.tokens);
    model_.loss(pass, micro.targets, eval_total_, per_token, i > 0);
    val_loader_->release(batch, *compute_);
  }
  const auto slot = static_cast<std::size_t>(in_step ? last_step_ : 0) % kSlots;
  mailbox_->post(*compute_, {"held-out loss to host", Phase::kEval}, slot, kEvalLoss, eval_total_);
  compute_->synchronize();
  if (in_step) account_.mark(StepClass::kOther);
  return mailbox_->look(slot, kEvalLoss);
}

std::int64_t Trainer::held_out_tokens() const {
  return val_batches_ * job_.config.train.micro_batch * job_.ranks * job_.config.train.sequence;
}

void Trainer::end() { account_.end(); }

StepReport Trainer::report(std::int64_t step) const {
  const auto slot = static_cast<std::size_t>(step) % kSlots;
  StepReport report{.step = step,
                    .times = account_.read(step),
                    .loss = mailbox_->look(slot, kLoss),
                    .grad_norm = mailbox_->look(slot, kGradNorm),
                    .buckets = {},
                    .backward = account_.last(step, StepClass::kBackward)};
  for (const comm::GradBuckets::Timing& timing : buckets_->timings(static_cast<int>(slot))) {
    report.comm_busy += device_.elapsed(*timing.begin, *timing.end);
    report.buckets.push_back({account_.since_begin(step, *timing.begin), account_.since_begin(step, *timing.end)});
  }
  return report;
}

std::string Trainer::memory_table() const {
  std::string table;
  std::size_t total_bytes = 0;
  for (const Arena* arena : memory_->all()) {
    if (arena->size_bytes() == 0) continue;
    table += fmt::format("  {:<16} {:<6} {:>14} bytes\n", arena->name(),
                         arena->kind() == MemoryKind::kDevice ? "device" : "host", arena->size_bytes());
    total_bytes += arena->size_bytes();
  }
  return table + fmt::format("  {:<16} {:<6} {:>14} bytes", "total", "", total_bytes);
}

std::size_t Trainer::memory_bytes(MemoryKind kind) const {
  std::size_t total_bytes = 0;
  for (const Arena* arena : memory_->all()) total_bytes += arena->kind() == kind ? arena->size_bytes() : 0;
  return total_bytes;
}

void Trainer::append_to(TensorTable& table, const char* prefix, const Tensor& flat) const {
  for (const OwnedRange& range : layout_.owned()) {
    const ParamSpec& spec = layout_.spec(range.param);
    table.entries.push_back({.name = prefix + spec.name,
                             .global_shape = spec.global_shape,
                             .view = flat.flat(range.flat_begin_elems, range.size_elems),
                             .begin_elems = range.begin_elems});
  }
}

std::vector<Trainer::MemoryPart> Trainer::memory_parts() const {
  std::vector<MemoryPart> parts;
  for (const Arena* arena : memory_->all()) {
    if (arena->size_bytes() > 0) parts.push_back({arena->name(), arena->kind(), arena->size_bytes()});
  }
  std::ranges::stable_sort(parts, std::ranges::greater(), &MemoryPart::size_bytes);
  return parts;
}

TensorTable Trainer::state_table() const {
  TensorTable table;
  append_to(table, "param/", weights_);
  append_to(table, "adam_m/", first_moment_);
  append_to(table, "adam_v/", second_moment_);
  return table;
}

}  // namespace strake::launch
