#include "models/parameters/parameters.h"

#include <utility>

#include "kernels/elementwise.h"
#include "models/parameters/replicated_parameters.h"
#include "models/parameters/sharded_parameters.h"

namespace strake::models {

Pass Parameters::pass(bool first, bool last) {
  last_ = last;
  return {.compute = compute_,
          .params = *this,
          .accumulate = first ? kernels::Accumulate::kOverwrite : kernels::Accumulate::kAdd};
}

Pass Parameters::evaluation() { return {.compute = compute_, .params = *this, .phase = Phase::kEval}; }

void Parameters::split_ids(const Tensor& ids) {
  split_rows_->put_ids(ids);
  if (last_ && overlaps_) split_rows_->gather_ids();
}

void Parameters::split_rows(const Tensor& rows) { split_rows_->put_rows(rows); }

void Parameters::wait_reduced() {
  if (split_rows_ != nullptr) {
    buckets_->start_rest();
    split_rows_->gather_rows();
  }
  compute_.wait(buckets_->reduced(), {"compute waits for reduced gradients", Hazard::kReadAfterWrite});
}

void Parameters::add_split_rows() {
  if (split_rows_ != nullptr) split_rows_->add_to(gradient(split_table_));
}

std::int64_t Parameters::owned_elems() const {
  std::int64_t elems = 0;
  for (const OwnedPiece& piece : owned_) elems += piece.elems;
  return elems;
}

void Parameters::publish() {
  for (std::size_t i = 0; i < owned_.size(); ++i) {
    const OwnedPiece& piece = owned_[i];
    if (piece.rounded_weights.defined())
      kernels::cast(compute_, {"weights to bf16", Phase::kOther}, {.dst = piece.rounded_weights, .src = piece.weights});
    updated(i);
  }
}

DType Parameters::wire_dtype(ParameterTypes types, const Reduction& reduction) {
  return reduction.communicator.size() > 1 ? types.wire : types.gradient;
}

void Parameters::reduce_by(Device& device, comm::BucketPlan plan, ParameterTypes types, const Memory& memory,
                           const Reduction& reduction, comm::Reduce reduce) {
  comm::Wire wire;
  if (plan.wire != types.gradient)
    wire = {Tensor::reserve(memory.wire, plan.wire, {plan.largest_elems()}),
            [](Stream& stream, Label label, const Tensor& dst, const Tensor& src) {
              kernels::cast(stream, label, {.dst = dst, .src = src});
            }};
  buckets_ =
      std::make_unique<comm::GradBuckets>(device, std::move(plan), layout_, gradients_, reduction.communicator,
                                          compute_, reduction.stream, reduction.overlap, std::move(wire), reduce);
  overlaps_ = reduction.overlap == comm::Overlap::kOn;
  if (!reduction.split.has_value()) return;
  split_table_ = reduction.split->table;
  split_rows_ = std::make_unique<SplitRows>(device, memory.wire, reduction.split->rows,
                                            layout_.spec(split_table_).global_shape.back(), types.compute,
                                            reduction.communicator, compute_, reduction.stream);
}

std::unique_ptr<Parameters> make_parameters(Shard shard, Device& device, ParamLayout& layout, ParameterTypes types,
                                            const Parameters::Memory& memory, Stream& compute,
                                            const Parameters::Reduction& reduction) {
  if (shard == Shard::kOptimizer && reduction.communicator.size() > 1)
    return std::make_unique<ShardedParameters>(device, layout, types, memory, compute, reduction);
  return std::make_unique<ReplicatedParameters>(device, layout, types, memory, compute, reduction);
}

}  // namespace strake::models
