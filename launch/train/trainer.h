// Trainer: one rank's training step. All streams of a rank meet in step() and nowhere else.
//
//   copy-in  --batch-->  compute: forward, backward --buckets--> comm: reduction --> compute: optimizer
//                                                                                     |--> copy-out: snapshot
//                                          (sharded) comm: weights of the next forward <--|
// Building a trainer plans; allocate() takes all memory; after that a step allocates nothing and never
// synchronises the host. The same code runs on the plan device (plan()), which is how the memory plan and the
// printed schedule are made.
// Threads: the training thread. Errors: what the parts throw.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/checkpointer.h"
#include "checkpoint/reader.h"
#include "checkpoint/shard_plan.h"
#include "comm/communicator.h"
#include "comm/registered_memory.h"
#include "data/loader.h"
#include "data/token_source.h"
#include "launch/config.h"
#include "launch/train/arenas.h"
#include "launch/train/evaluation.h"
#include "launch/train/snapshot.h"
#include "launch/train/step_account.h"
#include "models/parameters/adamw.h"
#include "models/parameters/parameters.h"
#include "models/schedule.h"
#include "models/transformer.h"
#include "runtime/device/device.h"
#include "runtime/device/memory_plan.h"
#include "runtime/device/recording.h"
#include "runtime/device/scalar_mailbox.h"

namespace strake::launch {

// What a rank trains: pure values, the same on every rank but for `rank`.
struct Job {
  Config config;
  Derived derived;
  models::TransformerShape shape;
  int rank = 0;
  int ranks = 1;
  // What the model computes in. bf16: weights are kept in f32 and rounded after every update.
  DType dtype = DType::kF32;
  // Of gradients, as they are accumulated: f32 also where bf16 micro-batches add up.
  DType gradient_dtype = DType::kF32;
  // Of gradients while they are summed over ranks.
  DType wire_dtype = DType::kF32;
  // Of a tied token table's gradient.
  models::SplitEmbedding split_embedding = models::SplitEmbedding::kNo;
};

// As many tell the memory of a step, and the kernels it needs, however many more there are: those are like the last.
inline constexpr std::int64_t kMicroBatchesOfMemory = 2;

// Activations placed by a dry run, and the step it recorded.
struct StepPlan {
  MemoryPlan activations;
  std::size_t workspace_bytes = 0;  // of the compute stream
  Recording recording;
};

// The learning rate of every step.
models::CosineSchedule schedule_of(const Config& config, const Derived& derived);

struct TokenSources {
  data::TokenSource* train;
  data::TokenSource* val;  // null: no evaluation
};

// What one finished step says, read late. Sums and losses are this rank's part.
struct StepReport {
  std::int64_t step = 0;
  StepTimes times;
  double loss = 0;       // this rank's share of the mean over all tokens of the step: ranks' shares add up to the loss
  double grad_norm = 0;  // of the reduced gradient, the same on every rank
  Nanoseconds comm_busy{0};         // time in collectives that carry gradients or weights, hidden or not
  struct BucketSpan {               // from the step's first mark
    Nanoseconds ready, begin, end;  // as GradBuckets::Timing
    bool final_at_end;              // as comm::Bucket
  };
  std::vector<BucketSpan> buckets;
  std::optional<BucketSpan> split_rows;  // of a split token table
  struct GatherSpan {
    Nanoseconds ready, begin, end, needed;  // as WeightGathers::Timing; some lie before the step
  };
  std::vector<GatherSpan> gathers;  // of weights that this step's forward reads, in the order of their gathers
  StepAccount::Span backward;       // of the last micro-batch
  bool saved = false;               // a checkpoint was begun behind it
};

class Trainer {
 public:
  // `planned` is null while planning. All references outlive the trainer.
  Trainer(const Job& job, Device& device, comm::Communicator& communicator, TokenSources sources,
          const StepPlan* planned);

  // Records one whole step on the plan device and places the activations.
  // `target`: the device that will run it; null: the CPU device.
  static StepPlan plan(const Job& job, comm::Communicator& communicator, TokenSources sources,
                       const Device* target = nullptr);
  // The same on a plan device of the caller's, for what may not be here.
  static StepPlan plan(const Job& job, comm::Communicator& communicator, TokenSources sources, PlanDevice& device);

  // Adds checkpoints, before allocate().
  void keep_checkpoints(Files& files, comm::Control& control, checkpoint::Options options);
  // Sets aside the memory that keep_checkpoints would, and no more: of a rank that writes `planned`.
  void reserve_checkpoints(checkpoint::StrategyKind strategy, bool paranoid,
                           std::span<const checkpoint::PlannedRange> planned);
  // Takes every byte, zero-filled.
  void allocate();
  // Tells the communicator of the arenas that collectives use. Collective, so when all ranks have their memory.
  void register_memory();
  // The newest checkpoint, as Checkpointer::load_newest. Blocks the host.
  std::optional<checkpoint::Meta> load_newest(const std::string& model);
  // Fresh weights, made on so many threads; zero moments. Blocks the host.
  void initialize(int threads);
  // The weights of a checkpoint that has this model's tensors and no more: moments stay zero. On CorruptError they are
  // undefined. Every rank calls it by itself. Blocks the host. REQUIRES: allocated, no step enqueued.
  void load_weights(Files& files, const checkpoint::FoundCheckpoint& found);
  // The next step to be enqueued begins with this sample of the run's order.
  void seek(std::int64_t next_sample);

  // Enqueues step `step` (from 0), up to and including the weight update.
  void step(std::int64_t step);
  // Begins a checkpoint of the weights after the last step() enqueued, as Snapshot::begin: checkpointer() says how it
  // goes. What holds the device up is part of the account: of that step, and of the next update.
  void save(const checkpoint::Meta& meta);
  // Mean loss of this rank over its part of `eval.batches` held-out batches, times its share: ranks' results add
  // up to the held-out loss in nats a token. Blocks the host; part of the last step in the account, if there is one.
  double evaluate();
  // Tokens that a held-out loss is the mean over, on all ranks.
  std::int64_t held_out_tokens() const;
  // Ends the account of the last step.
  void end();

  // Has step `step` run to its end on the device? Never blocks. REQUIRES: step + 1 or end() was enqueued.
  bool complete(std::int64_t step) const { return account_.complete(step); }
  // REQUIRES: complete(step), and step is one of the last kSlots - 2.
  StepReport report(std::int64_t step) const;

  checkpoint::Checkpointer& checkpointer() { return snapshot_->checkpointer(); }
  const comm::BucketPlan& buckets() const { return parameters_->buckets().plan(); }
  double learning_rate(std::int64_t step) const { return schedule_.at(step); }
  const Arenas& memory() const { return arenas_; }
  // All that this process takes, or will take, of device and host.
  MemoryTable memory_table() const;
  TensorTable state_table() const;
  const models::Parameters& parameters() const { return *parameters_; }
  // Flat, as the model reads them; what is enqueued on compute() behind this call may read all of them.
  const Tensor& whole_weights();
  Stream& compute() { return *compute_; }

 private:
  Evaluation make_evaluation(data::TokenSource& source);
  Snapshot::Memory memory_of_checkpoints();
  void gradients(const data::StepBatch& batch);
  // What follows on compute() may overwrite the state.
  void fence_snapshot();
  // Products of a micro-batch leave multiprocessors to the collectives that may run beside it.
  void spare_multiprocessors(bool first, bool last);
  TensorTable weights_table() const;
  std::vector<models::Parameters::Replica> replicas() const;

  Job job_;
  Device& device_;
  Arenas arenas_;
  comm::RegisteredMemory registered_;
  std::unique_ptr<Stream> compute_, comm_, copy_in_, copy_out_;  // they drain before the memory goes
  ParamLayout layout_;
  models::Transformer model_;
  std::unique_ptr<models::Parameters> parameters_;
  models::AdamW optimizer_;
  ActivationMemory activations_;
  Tensor workspace_, loss_total_, initial_staging_;
  ScalarMailbox mailbox_;
  data::Loader loader_;
  std::optional<Evaluation> evaluation_;
  std::unique_ptr<Snapshot> snapshot_;
  models::CosineSchedule schedule_;
  StepAccount account_;
  Event updated_;  // weights and moments of the last step are final
  comm::Communicator& communicator_;
  std::optional<std::size_t> outside_bytes_;       // taken of the device before the arenas were
  std::int64_t first_step_ = -1, last_step_ = -1;  // enqueued
  std::array<bool, StepAccount::kSlots> saved_{};  // behind the last steps
};

}  // namespace strake::launch
