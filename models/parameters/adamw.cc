#include "models/parameters/adamw.h"

namespace strake::models {

AdamW::AdamW(const ReplicatedParameters& parameters, const AdamWOptions& options, Memory memory) : options_(options) {
  const ParamLayout& layout = parameters.layout();
  const DType dtype = parameters.weights().dtype();
  for (const OwnedRange& range : layout.owned()) {
    segments_.push_back({range.flat_begin_elems, range.size_elems, layout.spec(range.param).weight_decay});
  }
  first_moment_ = Tensor::reserve(memory.moments, dtype, {layout.total_elems()});
  second_moment_ = Tensor::reserve(memory.moments, dtype, {layout.total_elems()});
  norm_ = Tensor::reserve(memory.scalars, dtype, {1});
  clip_ = Tensor::reserve(memory.scalars, dtype, {1});
  block_sums_ = Tensor::reserve(memory.scalars, DType::kF64, {kernels::norm_blocks(segments_)});
}

void AdamW::measure_norm(Stream& stream, const ReplicatedParameters& parameters) {
  kernels::gradient_norm(stream, {"gradient norm", Phase::kOptimizer},
                         {.norm = norm_,
                          .clip = clip_,
                          .block_sums = block_sums_,
                          .gradients = parameters.gradients(),
                          .segments = segments_,
                          .max_norm = options_.clip_norm});
}

void AdamW::update(Stream& stream, const ReplicatedParameters& parameters, double learning_rate, std::int64_t step) {
  kernels::adamw(stream, {"adamw", Phase::kOptimizer},
                 {.weights = parameters.weights(),
                  .first_moment = first_moment_,
                  .second_moment = second_moment_,
                  .gradients = parameters.gradients(),
                  .clip = clip_,
                  .segments = segments_,
                  .step = {.learning_rate = learning_rate,
                           .beta1 = options_.beta1,
                           .beta2 = options_.beta2,
                           .epsilon = options_.epsilon,
                           .weight_decay = options_.weight_decay,
                           .step = step},
                  .compute_weights = parameters.rounded_weights()});
}

}  // namespace strake::models
