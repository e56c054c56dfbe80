#include "launch/train/trainer.h"

#include <utility>

#include "comm/exposure.h"
#include "models/initialize.h"
#include "models/parameters/owned_ranges.h"

namespace strake::launch {
namespace {

constexpr std::size_t kSlots = StepAccount::kSlots;
static_assert(kSlots == static_cast<std::size_t>(comm::GradBuckets::kSlots), "one ring");

// Mailbox values of a step.
constexpr std::size_t kLoss = 0, kGradNorm = 1, kEvalLoss = 2, kMailboxValues = 3;

data::LoaderOptions loader_options(const Job& job, std::string name, std::int64_t micro_batches) {
  return {.name = std::move(name),
          .micro_batches = micro_batches,
          .micro_batch = job.config.train.micro_batch,
          .sequence = job.config.train.sequence,
          .rank = job.rank,
          .ranks = job.ranks,
          .vocab = job.shape.vocab};
}

// begin, 3 for the batch, 2 a micro-batch, exposed communication, optimizer, and 2 each for a checkpoint, an evaluation
// and a wait for weights.
int marks_of(const Job& job, const models::Parameters& parameters) {
  const std::size_t waits = parameters.replicated() ? 0 : parameters.owned().size();
  return static_cast<int>(2 * job.derived.accumulation + 2 * static_cast<std::int64_t>(waits)) + 12;
}

// What is left to measurement is planned by rule.
std::int64_t bucket_bytes_of(const Job& job, const ParamLayout& layout) {
  const std::optional<double> mib = job.config.comm.bucket_mib;
  return mib.has_value() ? static_cast<std::int64_t>(*mib * 1024 * 1024)
                         : comm::bucket_bytes_by_rule(layout, job.wire_dtype);
}

// Rows of a whole step, also in a plan that declares fewer micro-batches.
std::optional<models::Parameters::Reduction::SplitTable> split_table(const Job& job, const models::Transformer& model) {
  if (job.split_embedding == models::SplitEmbedding::kNo) return std::nullopt;
  return models::Parameters::Reduction::SplitTable{.table = model.token_table(),
                                                   .rows = job.derived.tokens_per_step / job.ranks};
}

kernels::AdamWOptions adamw_options(const Config::Optimizer& optimizer) {
  return {.beta1 = optimizer.beta1,
          .beta2 = optimizer.beta2,
          .epsilon = optimizer.epsilon,
          .weight_decay = optimizer.weight_decay};
}

}  // namespace

models::CosineSchedule schedule_of(const Config& config, const Derived& derived) {
  return {.peak = config.optimizer.learning_rate,
          .floor = derived.min_learning_rate,
          .warmup_steps = derived.warmup_steps,
          .total_steps = config.train.steps};
}

Trainer::Trainer(const Job& job, Device& device, comm::Communicator& communicator, TokenSources sources,
                 const StepPlan* planned)
    : job_(job),
      device_(device),
      registered_(communicator),
      compute_(device.make_stream("compute", StreamPriority::kNormal)),
      comm_(device.make_stream("comm", StreamPriority::kHigh)),
      copy_in_(device.make_stream("copy-in", StreamPriority::kNormal)),
      copy_out_(device.make_stream("copy-out", StreamPriority::kNormal)),
      model_(job.shape, layout_, job.split_embedding),
      parameters_(models::make_parameters(
          job.config.train.shard, device, layout_,
          {.compute = job.dtype, .gradient = job.gradient_dtype, .wire = job.wire_dtype},
          {arenas_.weights, arenas_.compute_weights, arenas_.gradients, arenas_.wire}, *compute_,
          {.communicator = communicator,
           .stream = *comm_,
           .bucket_bytes = bucket_bytes_of(job, layout_),
           .overlap = job.config.comm.overlap ? comm::Overlap::kOn : comm::Overlap::kOff,
           .split = split_table(job, model_)})),
      optimizer_(*parameters_, adamw_options(job.config.optimizer), job.config.optimizer.clip_norm, kSlots,
                 {arenas_.optimizer, arenas_.scalars, arenas_.host}),
      activations_(planned == nullptr ? ActivationMemory(arenas_.activations)
                                      : ActivationMemory(arenas_.activations, planned->activations.blocks)),
      loss_total_(Tensor::reserve(arenas_.scalars, parameters_->master(), {1})),
      initial_staging_(Tensor::reserve(arenas_.host, parameters_->master(), {models::initial_staging_elems(layout_)})),
      mailbox_(arenas_.host, parameters_->master(), kMailboxValues, kSlots),
      loader_(device, *copy_in_, arenas_.host, arenas_.input, *sources.train,
              data::SampleOrder::shuffled(static_cast<std::uint64_t>(job.config.run.seed),
                                          sources.train->sequences(job.config.train.sequence)),
              loader_options(job, "train", job.derived.accumulation)),
      schedule_(schedule_of(job.config, job.derived)),
      account_(device, *compute_, marks_of(job, *parameters_)),
      updated_(device.make_event("weights updated")),
      communicator_(communicator) {
  if (planned != nullptr) {
    arenas_.activations.reserve(planned->activations.size_bytes);
    if (planned->workspace_bytes > 0) {
      workspace_ =
          Tensor::reserve(arenas_.workspace, DType::kU8, {static_cast<std::int64_t>(planned->workspace_bytes)});
    }
  }
  parameters_->around_waits([this] { account_.mark(StepClass::kForward); },
                            [this] { account_.mark(StepClass::kExposedComm); });
  model_.recompute(job.config.train.recompute);
  model_.reserve(activations_, job.config.train.micro_batch, job.dtype, device.target());
  if (sources.val != nullptr) evaluation_.emplace(make_evaluation(*sources.val));
}

Evaluation Trainer::make_evaluation(data::TokenSource& source) {
  const Config::Train& train = job_.config.train;
  const std::int64_t sequences = source.sequences(train.sequence);
  const std::int64_t batches = evaluation_batches(job_.config, job_.ranks, sequences);
  return Evaluation(
      std::make_unique<data::Loader>(device_, *copy_in_, arenas_.host, arenas_.input, source,
                                     data::SampleOrder::sequential(sequences), loader_options(job_, "val", 1)),
      batches, batches * train.micro_batch * job_.ranks * train.sequence,
      Tensor::reserve(arenas_.scalars, parameters_->master(), {1}));
}

StepPlan Trainer::plan(const Job& job, comm::Communicator& communicator, TokenSources sources, const Device* target) {
  PlanDevice device = target == nullptr ? PlanDevice() : PlanDevice(*target);
  return plan(job, communicator, sources, device);
}

StepPlan Trainer::plan(const Job& job, comm::Communicator& communicator, TokenSources sources, PlanDevice& device) {
  StepPlan plan;
  {
    Trainer trainer(job, device, communicator, sources, nullptr);
    trainer.step(0);
    trainer.end();
    plan.activations = plan_memory(trainer.activations_.blocks(), trainer.arenas_.activations, device.recording());
    plan.workspace_bytes = device.recording().workspace_bytes(trainer.compute_->index());
  }
  plan.recording = std::move(device.recording());
  return plan;
}

void Trainer::keep_checkpoints(Files& files, comm::Control& control, checkpoint::Options options) {
  snapshot_ = std::make_unique<Snapshot>(device_, *compute_, *copy_out_, communicator_, control, files,
                                         std::move(options), replicas(), state_table(),
                                         Snapshot::Measured{loss_total_, optimizer_.norm()}, memory_of_checkpoints());
}

void Trainer::reserve_checkpoints(checkpoint::StrategyKind strategy, bool paranoid,
                                  std::span<const checkpoint::PlannedRange> planned) {
  Snapshot::reserve(strategy, paranoid, replicas(), state_table(), planned, optimizer_.norm().dtype(), job_.ranks,
                    memory_of_checkpoints());
}

Snapshot::Memory Trainer::memory_of_checkpoints() {
  return {arenas_.scalars, arenas_.host, {arenas_.checkpoint, &arenas_.snapshot, &arenas_.scalars}};
}

void Trainer::allocate() {
  outside_bytes_ = device_.driver_bytes();
  arenas_.allocate(device_);
  if (workspace_.defined()) compute_->set_workspace(workspace_);
}

// Whole arenas, once: gradients as they travel, rows of a split table, and weights where they are gathered.
void Trainer::register_memory() {
  if (parameters_->buckets().plan().wire == job_.gradient_dtype) registered_.add(arenas_.gradients);
  registered_.add(arenas_.wire);
  if (!parameters_->replicated()) registered_.add(parameters_->compute_weights().arena());
}

std::optional<checkpoint::Meta> Trainer::load_newest(const std::string& model) {
  std::optional<checkpoint::Meta> meta = checkpointer().load_newest(model, checkpoint::Exchange{communicator_, *comm_});
  if (meta.has_value()) parameters_->publish();
  return meta;
}

void Trainer::initialize(int threads) {
  for (const models::OwnedPiece& piece : parameters_->owned()) {
    models::initialize_weights(*compute_, piece.weights, initial_staging_, layout_,
                               static_cast<std::uint64_t>(job_.config.run.seed), threads, piece.begin_elems);
  }
  parameters_->publish();
}

void Trainer::load_weights(Files& files, const checkpoint::FoundCheckpoint& found) {
  const TensorTable table = weights_table();
  const Tensor staging(initial_staging_.arena(), initial_staging_.offset_bytes(), DType::kU8,
                       {static_cast<std::int64_t>(initial_staging_.extent_bytes())});
  constexpr const char* kAnyModel = "";  // whose tensors are these: who chose the checkpoint has looked
  checkpoint::read_tensors(files, found, table, kAnyModel, *copy_out_, staging);
  parameters_->publish();
}

const Tensor& Trainer::whole_weights() {
  parameters_->wait_whole();
  return parameters_->compute_weights();
}

void Trainer::seek(std::int64_t next_sample) { loader_.seek(next_sample); }

void Trainer::step(std::int64_t step) {
  const auto slot = static_cast<std::size_t>(step) % kSlots;
  account_.begin(step);
  parameters_->use_slot(static_cast<int>(slot));

  account_.mark(StepClass::kHostGap);
  const data::StepBatch batch = device_.kind() == DeviceKind::kPlan ? loader_.plan_batch() : loader_.next();
  account_.mark(StepClass::kDataWait);
  compute_->wait(*batch.ready, {"compute waits for the batch", Hazard::kReadAfterWrite});
  account_.mark(StepClass::kH2d);
  gradients(batch);
  loader_.release(batch, *compute_);  // WAR: copy-in may refill the slot behind this
  parameters_->wait_reduced();        // RAW
  account_.mark(StepClass::kExposedComm);
  parameters_->add_split_rows();
  optimizer_.measure_norm(*compute_, *parameters_);
  fence_snapshot();  // WAR: while a checkpoint's state is being copied
  optimizer_.update(*compute_, *parameters_, schedule_.at(step), step + 1);
  mailbox_.post(*compute_, {"loss to host", Phase::kOptimizer}, slot, kLoss, loss_total_);
  mailbox_.post(*compute_, {"norm to host", Phase::kOptimizer}, slot, kGradNorm, optimizer_.norm());
  compute_->record(updated_);
  account_.mark(StepClass::kOptimizer);
  if (last_step_ < 0) first_step_ = step;
  last_step_ = step;
  saved_[slot] = false;
}

void Trainer::gradients(const data::StepBatch& batch) {
  // The mean over every token of the step, on all ranks: sums over ranks need no further scaling.
  const double per_token = 1.0 / static_cast<double>(job_.derived.tokens_per_step);
  for (const data::MicroBatch& micro : batch.micro_batches) {
    const bool first = &micro == &batch.micro_batches.front(), last = &micro == &batch.micro_batches.back();
    spare_multiprocessors(first, last);
    const models::Pass pass = parameters_->pass(first, last);
    model_.forward(pass, micro.tokens);
    model_.loss_and_gradient(pass, micro.targets, loss_total_, per_token, per_token, !first);
    account_.mark(StepClass::kForward);
    model_.backward(pass, micro.tokens);  // in the last, buckets are reduced as they become final
    account_.mark(StepClass::kBackward);
  }
}

// Gathers of weights run beside the first forward of a step, reductions beside the last backward: whether or not they
// do run meanwhile, so that bits do not depend on overlap.
void Trainer::spare_multiprocessors(bool first, bool last) {
  KernelState* const kernels = device_.kernel_state();
  if (kernels == nullptr) return;
  const int spared = job_.ranks > 1 ? static_cast<int>(job_.config.comm.spare_sms) : 0;
  kernels->spare({.forward = first && !parameters_->replicated() ? spared : 0, .backward = last ? spared : 0});
}

void Trainer::save(const checkpoint::Meta& meta) {
  account_.mark(StepClass::kHostGap);
  parameters_->wait_whole();
  saved_[static_cast<std::size_t>(last_step_) % kSlots] = true;
  snapshot_->begin(updated_, meta, schedule_.at(last_step_));
  if (checkpointer().holds() == checkpoint::Holds::kNextStep) checkpointer().fence(*compute_);
  account_.mark(StepClass::kCheckpoint);
}

void Trainer::fence_snapshot() {
  if (snapshot_ == nullptr || !checkpointer().must_fence()) return;
  account_.mark(StepClass::kOptimizer);
  checkpointer().fence(*compute_);
  account_.mark(StepClass::kCheckpoint);
}

double Trainer::evaluate() {
  STRAKE_CHECK(evaluation_.has_value(), "no held-out tokens");
  const bool in_step = last_step_ >= 0;  // not in a run that has no step left to do
  if (in_step) account_.mark(StepClass::kHostGap);
  parameters_->wait_whole();
  spare_multiprocessors(job_.derived.accumulation == 1, true);  // the products of a step's last micro-batch: known ones
  evaluation_->enqueue(model_, parameters_->evaluation());
  const auto slot = static_cast<std::size_t>(in_step ? last_step_ : 0) % kSlots;
  mailbox_.post(*compute_, {"held-out loss to host", Phase::kEval}, slot, kEvalLoss, evaluation_->total());
  compute_->synchronize();
  if (in_step) account_.mark(StepClass::kOther);
  return mailbox_.look(slot, kEvalLoss);
}

std::int64_t Trainer::held_out_tokens() const { return evaluation_->tokens(); }

void Trainer::end() { account_.end(); }

StepReport Trainer::report(std::int64_t step) const {
  const auto slot = static_cast<std::size_t>(step) % kSlots;
  StepReport report{.step = step,
                    .times = account_.read(step),
                    .loss = mailbox_.look(slot, kLoss),
                    .grad_norm = mailbox_.look(slot, kGradNorm),
                    .buckets = {},
                    .split_rows = {},
                    .gathers = {},
                    .backward = account_.last(step, StepClass::kBackward),
                    .saved = saved_[slot]};
  const auto since_begin = [&](const Mark& mark) { return account_.since_begin(step, mark); };
  const auto timings = parameters_->buckets().timings(static_cast<int>(slot));
  for (std::size_t i = 0; i < timings.size(); ++i) {
    const auto& timing = timings[i];
    report.comm_busy += device_.elapsed(*timing.begin, *timing.end);
    report.buckets.push_back({.ready = since_begin(*timing.ready),
                              .begin = since_begin(*timing.begin),
                              .end = since_begin(*timing.end),
                              .final_at_end = buckets().buckets[i].final_at_end});
  }
  if (const models::SplitRows* rows = parameters_->split_rows(); rows != nullptr) {
    const auto timing = rows->timing(static_cast<int>(slot));
    report.comm_busy += device_.elapsed(*timing.begin, *timing.end);
    report.split_rows = {.ready = since_begin(*timing.ready),
                         .begin = since_begin(*timing.begin),
                         .end = since_begin(*timing.end),
                         .final_at_end = true};
  }
  if (step == first_step_) return report;  // gathers are enqueued in the step before
  for (const auto& timing : parameters_->gathers(static_cast<int>((step - 1) % std::int64_t{kSlots}))) {
    report.comm_busy += device_.elapsed(*timing.begin, *timing.end);
    report.gathers.push_back({since_begin(*timing.ready), since_begin(*timing.begin), since_begin(*timing.end),
                              since_begin(*timing.needed)});
  }
  return report;
}

MemoryTable Trainer::memory_table() const {
  const bool taken = arenas_.weights.allocated();
  MemoryTable table = arenas_.table();
  if (const std::size_t staging_bytes = communicator_.staging_bytes(); staging_bytes > 0) {
    table.rows.push_back({"communication staging", MemoryKind::kHost, staging_bytes});
  }
  const std::optional<std::size_t> now_bytes = device_.driver_bytes();
  if (const auto outside = taken ? outside_bytes_ : now_bytes; outside.has_value()) {
    table.rows.push_back({kContextAndLibraries, MemoryKind::kDevice, *outside});
  }
  if (taken) table.driver_bytes = now_bytes;
  return table;
}

TensorTable Trainer::weights_table() const {
  TensorTable table;
  for (const models::OwnedPiece& piece : parameters_->owned()) {
    models::append_ranges(table, "param/", layout_, piece.ranges, piece.weights, parameters_->replicated());
  }
  return table;
}

TensorTable Trainer::state_table() const {
  TensorTable table = weights_table();
  const auto append_state = [&](std::string_view prefix, const Tensor& state) {
    for (const models::OwnedPiece& piece : parameters_->owned()) {
      models::append_ranges(table, prefix, layout_, piece.ranges, state.flat(piece.state_begin_elems, piece.elems),
                            parameters_->replicated());
    }
  };
  append_state("adam_m/", optimizer_.first_moment());
  append_state("adam_v/", optimizer_.second_moment());
  return table;
}

std::vector<models::Parameters::Replica> Trainer::replicas() const {
  std::vector<models::Parameters::Replica> replicas = parameters_->replicas();
  if (parameters_->replicated()) {
    replicas.push_back({"first moments", optimizer_.first_moment()});
    replicas.push_back({"second moments", optimizer_.second_moment()});
  }
  return replicas;
}

}  // namespace strake::launch
