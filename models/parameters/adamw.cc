#include "models/parameters/adamw.h"

#include <tuple>
#include <utility>

namespace strake::models {

AdamW::AdamW(const Parameters& parameters, const kernels::AdamWOptions& options, double clip_norm, std::size_t slots,
             Memory memory)
    : options_(options),
      clip_norm_(clip_norm),
      slots_(slots),
      step_scalars_(memory.host, std::tuple_size_v<kernels::AdamWScalars>, slots),
      scalars_(Tensor::reserve(memory.scalars, DType::kF64, {std::tuple_size_v<kernels::AdamWScalars>})) {
  const ParamLayout& layout = parameters.layout();
  const DType dtype = parameters.master();
  std::vector<std::int64_t> first_blocks;
  std::int64_t blocks = 0;
  for (const ParamSpec& spec : layout.specs()) {
    first_blocks.push_back(blocks);
    blocks += kernels::norm_blocks(spec.elems());
  }
  for (const OwnedPiece& owned : parameters.owned()) {
    Piece piece{.segments = {}, .first_block = 0};
    for (const OwnedRange& range : owned.ranges) {
      // Pieces are cut between blocks, so the blocks of a piece follow each other.
      if (piece.segments.empty())
        piece.first_block = first_blocks[index_of(range.param)] + range.begin_elems / kernels::kNormBlockElems;
      piece.segments.push_back({range.flat_begin_elems, range.size_elems, layout.spec(range.param).weight_decay});
    }
    pieces_.push_back(std::move(piece));
  }
  first_moment_ = Tensor::reserve(memory.moments, dtype, {parameters.owned_elems()});
  second_moment_ = Tensor::reserve(memory.moments, dtype, {parameters.owned_elems()});
  norm_ = Tensor::reserve(memory.scalars, dtype, {1});
  clip_ = Tensor::reserve(memory.scalars, dtype, {1});
  block_sums_ = Tensor::reserve(memory.scalars, DType::kF64, {blocks});
  own_sums_ = parameters.replicated() ? block_sums_ : Tensor::reserve(memory.scalars, DType::kF64, {blocks});
}

void AdamW::measure_norm(Stream& stream, Parameters& parameters) {
  for (std::size_t i = 0; i < pieces_.size(); ++i) {
    const Piece& piece = pieces_[i];
    kernels::square_sums(stream, {"square sums", Phase::kOptimizer},
                         {.block_sums = own_sums_.flat(piece.first_block, kernels::norm_blocks(piece.segments)),
                          .gradients = parameters.owned()[i].gradients,
                          .segments = piece.segments});
  }
  if (!parameters.replicated()) {
    stream.copy({"own block sums", Phase::kOptimizer}, block_sums_, own_sums_);
    parameters.add_over_ranks(block_sums_);
  }
  kernels::gradient_norm(stream, {"gradient norm", Phase::kOptimizer},
                         {.norm = norm_, .clip = clip_, .block_sums = block_sums_, .max_norm = clip_norm_});
}

void AdamW::update(Stream& stream, Parameters& parameters, double learning_rate, std::int64_t step) {
  const std::size_t slot = static_cast<std::size_t>(step) % slots_;
  if (stream.device().kind() != DeviceKind::kPlan)
    step_scalars_.put(slot, kernels::adamw_scalars(options_, learning_rate, step));
  step_scalars_.fetch(stream, {"step scalars", Phase::kOptimizer}, slot, scalars_);
  for (std::size_t i = 0; i < pieces_.size(); ++i) {
    const OwnedPiece& piece = parameters.owned()[i];
    kernels::adamw(stream, {"adamw", Phase::kOptimizer},
                   {.weights = piece.weights,
                    .first_moment = first_moment_.flat(piece.state_begin_elems, piece.elems),
                    .second_moment = second_moment_.flat(piece.state_begin_elems, piece.elems),
                    .gradients = piece.gradients,
                    .clip = clip_,
                    .scalars = scalars_,
                    .segments = pieces_[i].segments,
                    .options = options_,
                    .compute_weights = piece.rounded_weights});
    parameters.updated(i);
  }
}

}  // namespace strake::models
