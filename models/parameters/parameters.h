// Parameters: weights and gradients of a model as a rank of the data axis holds them, and how gradients are reduced.
// ReplicatedParameters: every rank holds and updates all of it. ShardedParameters: every rank updates its own piece.
//
// Weights are kept in f32 (f64 where the model computes in that); where the model computes in bf16 it reads a rounded
// copy. Ordering: passes run on the compute stream; in the last one of a step each bucket's reduction starts on the
// communication stream as its gradients become final; wait_reduced() brings the two together. Then the optimizer
// updates what the rank owns, piece by piece in the order of owned(), and says updated() behind each. Threads: the
// training thread. Errors: as comm::GradBuckets.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "comm/grad_buckets.h"
#include "comm/weight_gathers.h"
#include "models/parameters/param_access.h"
#include "models/parameters/split_rows.h"
#include "models/shard.h"
#include "runtime/device/device.h"
#include "runtime/device/param_spec.h"

namespace strake::models {

struct ParameterTypes {
  DType compute;   // what the model reads
  DType gradient;  // of gradients, as they are accumulated
  DType wire;      // of gradients while they are summed over ranks

  // Of weights and moments as they are updated.
  DType master() const { return compute == DType::kBF16 ? DType::kF32 : compute; }
};

// A flat range of the layout that this rank updates.
struct OwnedPiece {
  std::int64_t begin_elems = 0;        // in the layout
  std::int64_t state_begin_elems = 0;  // in tensors that hold no more than what is owned: moments
  std::int64_t elems = 0;
  std::size_t bucket = 0;          // of which it is a piece, where it is one
  std::vector<OwnedRange> ranges;  // its parts of parameters; flat_begin_elems counts from the piece's begin
  Tensor weights, gradients;       // [elems]
  Tensor rounded_weights;  // where the update leaves its rounded copy; undefined where the model reads `weights`
};

class Parameters : public ParamAccess {
 public:
  struct Memory {
    Arena &weights, &compute_weights, &gradients, &wire;
  };
  struct Reduction {
    comm::Communicator& communicator;
    Stream& stream;  // the communicator's own
    std::int64_t bucket_bytes;
    comm::Overlap overlap;
    // The token table, where its gradient is split, and the rows that this rank adds to it in a step.
    struct SplitTable {
      ParamId table;
      std::int64_t rows;
    };
    std::optional<SplitTable> split = {};
  };

  // Which ring slot the marks of the step that is enqueued next use.
  virtual void use_slot(int slot) {
    buckets_->use_slot(slot);
    if (split_rows_) split_rows_->use_slot(slot);
  }
  // The next micro-batch of a step: the first overwrites gradients, later ones add; in the last they become final.
  Pass pass(bool first, bool last);
  // Of the weights alone.
  Pass evaluation();
  // RAW: what is enqueued on compute behind this call reads reduced gradients, of owned pieces, but for the rows of a
  // split table. Ends the step's reduction.
  void wait_reduced();
  // And those. Follows wait_reduced().
  void add_split_rows();

  Tensor gradient(ParamId id) override { return layout_.view(gradients_, id); }
  void ready(ParamId id) override {
    if (last_) buckets_->ready(id);
  }
  void split_ids(const Tensor& ids) override;
  void split_rows(const Tensor& rows) override;

  // What this rank updates, in the order in which the next forward needs it, and the elements of all of it.
  const std::vector<OwnedPiece>& owned() const { return owned_; }
  std::int64_t owned_elems() const;
  // sums [n]: of every rank, added up where ranks own different pieces; each element is 0 on all ranks but one.
  virtual void add_over_ranks(const Tensor& sums) = 0;
  // The update of owned()[piece] is enqueued on compute.
  virtual void updated(std::size_t piece) = 0;
  // The weights of owned pieces were set from outside, on compute: what the model reads becomes them, on every rank.
  void publish();
  // What is enqueued on compute behind this call may read all weights that the model reads.
  virtual void wait_whole() = 0;
  // Calls `before` and `behind` around each wait for weights that a pass asks for.
  virtual void around_waits(std::function<void()> before, std::function<void()> behind) = 0;

  // What every rank holds alike between steps.
  struct Replica {
    std::string name;
    Tensor flat;
  };
  virtual std::vector<Replica> replicas() const = 0;
  // Whether other ranks own what this one does: the optimizer's state too is a replica then.
  virtual bool replicated() const = 0;

  const ParamLayout& layout() const { return layout_; }
  const Tensor& compute_weights() const { return compute_weights_; }  // flat, see wait_whole()
  DType master() const { return master_; }
  comm::GradBuckets& buckets() { return *buckets_; }
  const comm::GradBuckets& buckets() const { return *buckets_; }
  const SplitRows* split_rows() const { return split_rows_.get(); }  // null: no table is split
  // Collectives that carry weights, in the order in which a step waits for them; of the step before in ring slot
  // `slot`.
  virtual std::vector<comm::WeightGathers::Timing> gathers(int slot) const = 0;

 protected:
  // `layout` and all references outlive this object.
  Parameters(const ParamLayout& layout, ParameterTypes types, Stream& compute)
      : layout_(layout), compute_(compute), master_(types.master()) {}

  // Buckets of `plan`, with memory for what travels in a type of its own, and for the rows of a split table.
  void reduce_by(Device& device, comm::BucketPlan plan, ParameterTypes types, const Memory& memory,
                 const Reduction& reduction, comm::Reduce reduce);
  // Of gradients on their way: one rank alone sends nothing.
  static DType wire_dtype(ParameterTypes types, const Reduction& reduction);

  const ParamLayout& layout_;
  Stream& compute_;
  DType master_;
  Tensor compute_weights_, gradients_;  // flat; what the model reads and makes
  std::unique_ptr<comm::GradBuckets> buckets_;
  std::unique_ptr<SplitRows> split_rows_;
  std::vector<OwnedPiece> owned_;

 private:
  ParamId split_table_{};  // where there are split_rows_
  bool overlaps_ = false;
  bool last_ = false;  // the pass being enqueued makes gradients final
};

// Sharded where that is asked for and there is another rank. Pads `layout` so that buckets are equal pieces; the layout
// and all references outlive the result.
std::unique_ptr<Parameters> make_parameters(Shard shard, Device& device, ParamLayout& layout, ParameterTypes types,
                                            const Parameters::Memory& memory, Stream& compute,
                                            const Parameters::Reduction& reduction);

}  // namespace strake::models
