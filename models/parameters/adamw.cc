#include "models/parameters/adamw.h"

#include <tuple>

namespace strake::models {

AdamW::AdamW(const ReplicatedParameters& parameters, const kernels::AdamWOptions& options, double clip_norm,
             std::size_t slots, Memory memory)
    : options_(options),
      clip_norm_(clip_norm),
      slots_(slots),
      step_scalars_(memory.host, std::tuple_size_v<kernels::AdamWScalars>, slots),
      scalars_(Tensor::reserve(memory.scalars, DType::kF64, {std::tuple_size_v<kernels::AdamWScalars>})) {
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
                          .max_norm = clip_norm_});
}

void AdamW::update(Stream& stream, const ReplicatedParameters& parameters, double learning_rate, std::int64_t step) {
  const std::size_t slot = static_cast<std::size_t>(step) % slots_;
  if (stream.device().kind() != DeviceKind::kPlan)
    step_scalars_.put(slot, kernels::adamw_scalars(options_, learning_rate, step));
  step_scalars_.fetch(stream, {"step scalars", Phase::kOptimizer}, slot, scalars_);
  kernels::adamw(stream, {"adamw", Phase::kOptimizer},
                 {.weights = parameters.weights(),
                  .first_moment = first_moment_,
                  .second_moment = second_moment_,
                  .gradients = parameters.gradients(),
                  .clip = clip_,
                  .scalars = scalars_,
                  .segments = segments_,
                  .options = options_,
                  .compute_weights = parameters.rounded_weights()});
}

}  // namespace strake::models
