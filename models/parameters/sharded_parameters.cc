#include "models/parameters/sharded_parameters.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace strake::models {

namespace {

// Buckets in the order in which forward needs them.
std::vector<std::size_t> as_forward_needs(const comm::BucketPlan& plan, bool split) {
  std::vector<std::size_t> order(plan.buckets.size());
  std::iota(order.rbegin(), order.rend(), std::size_t{0});
  if (split) std::rotate(order.begin(), order.end() - 1, order.end());  // the token table's, which was the last
  return order;
}

}  // namespace

ShardedParameters::ShardedParameters(Device& device, ParamLayout& layout, ParameterTypes types, const Memory& memory,
                                     Stream& compute, const Reduction& reduction)
    : Parameters(layout, types, compute),
      communicator_(reduction.communicator),
      comm_(reduction.stream),
      sums_final_(device.make_event("block sums final")),
      sums_added_(device.make_event("block sums added")) {
  const int ranks = communicator_.size();
  comm::BucketPlan plan = comm::plan_pieces(layout, wire_dtype(types, reduction), reduction.bucket_bytes, ranks);
  const std::int64_t flat_elems = layout.total_elems();
  const bool rounds = types.compute != types.master();
  weights_ = Tensor::reserve(memory.weights, types.master(), {rounds ? flat_elems / ranks : flat_elems});
  compute_weights_ = rounds ? Tensor::reserve(memory.compute_weights, types.compute, {flat_elems}) : weights_;
  gradients_ = Tensor::reserve(memory.gradients, types.gradient, {flat_elems});

  std::int64_t state_elems = 0;
  for (const std::size_t i : as_forward_needs(plan, reduction.split.has_value())) {
    const std::int64_t elems = plan.buckets[i].elems() / ranks;
    const std::int64_t begin = plan.buckets[i].begin_elems + communicator_.rank() * elems;
    OwnedPiece piece{.begin_elems = begin,
                     .state_begin_elems = state_elems,
                     .elems = elems,
                     .bucket = i,
                     .ranges = layout.ranges(begin, begin + elems),
                     .weights = weights_.flat(rounds ? state_elems : begin, elems),
                     .gradients = gradients_.flat(begin, elems),
                     .rounded_weights = rounds ? compute_weights_.flat(begin, elems) : Tensor()};
    for (OwnedRange& range : piece.ranges) range.flat_begin_elems -= begin;
    state_elems += elems;
    owned_.push_back(std::move(piece));
  }
  gathers_ = std::make_unique<comm::WeightGathers>(device, plan, layout, compute_weights_, communicator_, compute,
                                                   comm_, reduction.overlap);
  reduce_by(device, std::move(plan), types, memory, reduction, comm::Reduce::kOwnPiece);
}

void ShardedParameters::add_over_ranks(const Tensor& sums) {
  compute_.record(sums_final_);
  comm_.wait(sums_final_, {"communication waits for block sums", Hazard::kReadAfterWrite});
  communicator_.all_reduce(comm_, {"block sums all-reduce", Phase::kComm}, sums);
  comm_.record(sums_added_);
  compute_.wait(sums_added_, {"compute waits for added block sums", Hazard::kReadAfterWrite});
}

void ShardedParameters::updated(std::size_t piece) {
  gathers_->start(owned_[piece].bucket);
  if (piece + 1 == owned_.size()) gathers_->all_started();
}

}  // namespace strake::models
