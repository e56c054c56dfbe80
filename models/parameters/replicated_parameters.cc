#include "models/parameters/replicated_parameters.h"

namespace strake::models {

ReplicatedParameters::ReplicatedParameters(Device& device, const ParamLayout& layout, ParameterTypes types,
                                           const Memory& memory, Stream& compute, const Reduction& reduction)
    : Parameters(layout, types, compute) {
  const std::int64_t flat_elems = layout.total_elems();
  const bool rounds = types.compute != types.master();
  weights_ = Tensor::reserve(memory.weights, types.master(), {flat_elems});
  compute_weights_ = rounds ? Tensor::reserve(memory.compute_weights, types.compute, {flat_elems}) : weights_;
  gradients_ = Tensor::reserve(memory.gradients, types.gradient, {flat_elems});
  owned_.push_back({.elems = flat_elems,
                    .ranges = layout.owned(),
                    .weights = weights_,
                    .gradients = gradients_,
                    .rounded_weights = rounds ? compute_weights_ : Tensor()});
  reduce_by(device, comm::plan_buckets(layout, wire_dtype(types, reduction), reduction.bucket_bytes), types, memory,
            reduction, comm::Reduce::kWhole);
}

}  // namespace strake::models
