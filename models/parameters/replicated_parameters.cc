#include "models/parameters/replicated_parameters.h"

#include <utility>

#include "kernels/elementwise.h"

namespace strake::models {

ReplicatedParameters::ReplicatedParameters(Device& device, const ParamLayout& layout, ParameterTypes types,
                                           Memory memory, Stream& compute, Reduction reduction)
    : layout_(layout), compute_(compute) {
  const std::int64_t flat_elems = layout.total_elems();
  weights_ = Tensor::reserve(memory.weights, types.master(), {flat_elems});
  compute_weights_ =
      types.compute == types.master() ? weights_ : Tensor::reserve(memory.compute_weights, types.compute, {flat_elems});
  gradients_ = Tensor::reserve(memory.gradients, types.gradient, {flat_elems});
  // One rank alone sends nothing.
  const DType wire_dtype = reduction.communicator.size() > 1 ? types.wire : types.gradient;
  comm::BucketPlan plan = comm::plan_buckets(layout, wire_dtype, reduction.bucket_bytes);
  comm::Wire wire;
  if (wire_dtype != types.gradient)
    wire = {Tensor::reserve(memory.wire, wire_dtype, {plan.largest_elems()}),
            [](Stream& stream, Label label, const Tensor& dst, const Tensor& src) {
              kernels::cast(stream, label, {.dst = dst, .src = src});
            }};
  buckets_ = std::make_unique<comm::GradBuckets>(device, std::move(plan), layout, gradients_, reduction.communicator,
                                                 compute, reduction.stream, reduction.overlap, std::move(wire));
}

Pass ReplicatedParameters::pass(bool first, bool last) {
  last_ = last;
  return {.compute = compute_,
          .params = *this,
          .accumulate = first ? kernels::Accumulate::kOverwrite : kernels::Accumulate::kAdd};
}

Pass ReplicatedParameters::evaluation() { return {.compute = compute_, .params = *this, .phase = Phase::kEval}; }

void ReplicatedParameters::wait_reduced() {
  compute_.wait(buckets_->reduced(), {"compute waits for reduced gradients", Hazard::kReadAfterWrite});
}

void ReplicatedParameters::round_weights() {
  if (rounds()) kernels::cast(compute_, {"weights to bf16", Phase::kOther}, {.dst = compute_weights_, .src = weights_});
}

}  // namespace strake::models
