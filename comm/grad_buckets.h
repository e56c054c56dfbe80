// GradBuckets: starts the reduction of each gradient bucket while backward still runs.
//
// The model calls `ready(param)` as each gradient becomes final, in the layout's order. When the last
// parameter of a bucket is ready, the communication stream is made to wait for the compute stream there
// and the bucket's all-reduce is enqueued; its reduce-scatter, where a rank needs no more than the sums of its own
// piece. With Overlap::kOff every bucket is enqueued at the end of backward instead, on the same stream in the same
// order: the result is equal bit for bit.
//
// Gradients may be kept in one type and travel in another (accumulated in f32, reduced in bf16): a bucket is then
// converted into a staging buffer, reduced there, and converted back, all in the order of the communication stream.
// Threads: the training thread. Errors: as Communicator; readiness out of order is a programmer error.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "comm/bucket_plan.h"
#include "comm/communicator.h"

namespace strake::comm {

enum class Overlap : bool { kOff = false, kOn = true };

// What of a bucket is summed on this rank: all of it, or the one of size() equal pieces that is its own (the rest is
// undefined then).
enum class Reduce : bool { kWhole, kOwnPiece };

// How gradients travel where plan.wire is not their own type.
struct Wire {
  Tensor staging;  // [at least the elems of the largest bucket], plan.wire
  std::function<void(Stream& stream, Label label, const Tensor& dst, const Tensor& src)> convert;  // enqueues
};

class GradBuckets {
 public:
  // `gradients`: the flat arena, in plan.wire or with a `wire`. `compute`: the stream backward runs on;
  // `comm_stream`: the communicator's own. All outlive this object.
  GradBuckets(Device& device, BucketPlan plan, const ParamLayout& layout, Tensor gradients, Communicator& communicator,
              Stream& compute, Stream& comm_stream, Overlap overlap, Wire wire = {}, Reduce reduce = Reduce::kWhole);

  // The gradient of `param` is final once what is enqueued on compute has run. REQUIRES: called once per
  // parameter and step, in layout order, in the last micro-batch.
  void ready(ParamId param);
  // Enqueues what of this step is not yet: with Overlap::kOff all of it. REQUIRES: all parameters were ready.
  void start_rest();
  // Completes when every bucket of this step is summed over ranks, and whatever else the communication stream was given
  // before this call. REQUIRES: all parameters were ready.
  // Ends the step: the next ready() starts a new one. The event means this step until reduced() is called in the next.
  const Event& reduced();

  const BucketPlan& plan() const { return plan_; }
  // Bucket i of the step in ring slot `slot`: a mark on compute behind its last gradient, and marks on the
  // communication stream, begin behind the wait for its gradients, end behind its reduction, conversions included. The
  // time from ready to begin is spent behind the buckets before (with Overlap::kOff, behind the rest of backward too).
  struct Timing {
    const Mark* ready;
    const Mark* begin;
    const Mark* end;
  };
  std::vector<Timing> timings(int slot) const;
  // Which ring slot the marks of the current step use; set by the trainer before the first ready() of a step.
  void use_slot(int slot);
  static constexpr int kSlots = 4;

 private:
  void launch(std::size_t index);

  BucketPlan plan_;
  struct Labels {
    std::string reduce, to_wire, from_wire;  // "bucket 3 all-reduce"
  };
  std::vector<Labels> labels_;
  Tensor gradients_;
  Wire wire_;
  Communicator& communicator_;
  Stream& compute_;
  Stream& comm_;
  Overlap overlap_;
  Reduce reduce_;
  std::size_t slot_ = 0;
  std::size_t next_param_ = 0;
  std::size_t final_buckets_ = 0;         // whose gradients are all ready
  std::size_t next_bucket_ = 0;           // to be launched
  std::vector<Event> grads_final_;        // per bucket, recorded on compute
  Event reduced_;                         // on comm, behind the last bucket
  std::vector<std::vector<Mark>> ready_;  // [slot][bucket], on compute
  std::vector<std::vector<Mark>> begin_;  // the same, on comm
  std::vector<std::vector<Mark>> end_;
};

}  // namespace strake::comm
