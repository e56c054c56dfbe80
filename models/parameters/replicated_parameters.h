// ReplicatedParameters: weights and gradients of a model that every rank of the data axis holds whole, and the
// reduction that makes gradients equal. What of this a shard of each would do otherwise is in this class alone.
//
// Weights are kept in f32 (f64 where the model computes in that); where the model computes in bf16 it reads a rounded
// copy. Ordering: passes run on the compute stream; in the last one of a step each bucket's reduction starts on the
// communication stream as its gradients become final; wait_reduced() brings the two together.
// Threads: the training thread. Errors: as comm::GradBuckets.
#pragma once

#include <cstdint>
#include <memory>

#include "comm/communicator.h"
#include "comm/grad_buckets.h"
#include "models/parameters/param_access.h"
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

class ReplicatedParameters final : public ParamAccess {
 public:
  struct Memory {
    Arena &weights, &compute_weights, &gradients, &wire;
  };
  struct Reduction {
    comm::Communicator& communicator;
    Stream& stream;  // the communicator's own
    std::int64_t bucket_bytes;
    comm::Overlap overlap;
  };

  // `layout` and all references outlive this object.
  ReplicatedParameters(Device& device, const ParamLayout& layout, ParameterTypes types, Memory memory, Stream& compute,
                       Reduction reduction);

  // The next micro-batch of a step: the first overwrites gradients, later ones add; in the last they become final.
  Pass pass(bool first, bool last);
  // Of the weights alone.
  Pass evaluation();
  // RAW: what is enqueued on compute behind this call reads reduced gradients. Ends the step's reduction.
  void wait_reduced();
  // Weights that were set from outside, in the type that the model reads.
  void round_weights();

  Tensor weight(ParamId id) override { return layout_.view(compute_weights_, id); }
  Tensor gradient(ParamId id) override { return layout_.view(gradients_, id); }
  void ready(ParamId id) override {
    if (last_) buckets_->ready(id);
  }

  const ParamLayout& layout() const { return layout_; }
  comm::GradBuckets& buckets() { return *buckets_; }
  const comm::GradBuckets& buckets() const { return *buckets_; }
  const Tensor& weights() const { return weights_; }  // flat, as the optimizer updates them
  const Tensor& gradients() const { return gradients_; }
  // Where the update leaves its rounded copy; undefined where the model reads `weights`.
  Tensor rounded_weights() const { return rounds() ? compute_weights_ : Tensor(); }

 private:
  bool rounds() const { return compute_weights_.dtype() != weights_.dtype(); }

  const ParamLayout& layout_;
  Stream& compute_;
  Tensor weights_, compute_weights_, gradients_;
  std::unique_ptr<comm::GradBuckets> buckets_;
  bool last_ = false;  // the pass being enqueued makes gradients final
};

}  // namespace strake::models
