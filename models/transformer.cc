#include "models/transformer.h"

#include <algorithm>
#include <cstddef>
#include <optional>
#include <ranges>
#include <utility>
#include <vector>

namespace strake::models {
namespace {

std::vector<Layer> make_layers(const TransformerShape& shape, ParamLayout& layout) {
  std::vector<Layer> layers;
  for (std::int64_t index = shape.layers; index-- > 0;) layers.emplace_back(layout, shape, index);
  return layers;
}

// Where nothing of the embedding is computed in backward, the first layer's norm, the last of the layout, ends it.
void end_with_norm(const TransformerShape& shape, ParamLayout& layout) {
  std::vector<ParamSpec> specs = layout.specs();
  const std::ptrdiff_t of_norm = shape.norm == Norm::kLayer ? 2 : 1;
  std::for_each(specs.end() - of_norm, specs.end(), [](ParamSpec& spec) { spec.final_at_end = true; });
  layout = ParamLayout(std::move(specs));
}

}  // namespace

Transformer::Transformer(const TransformerShape& shape, ParamLayout& layout, SplitEmbedding split)
    : shape_(shape),
      head_(layout, shape, split),
      layers_(make_layers(shape, layout)),
      embedding_(layout, shape, split == SplitEmbedding::kYes ? std::optional(head_.weight()) : std::nullopt) {
  if (shape.tied_head) head_.tie(embedding_.token_table());
  if (split == SplitEmbedding::kYes && shape.positions != Positions::kLearned) end_with_norm(shape, layout);
}

void Transformer::recompute(Recompute policy) {
  for (Layer& layer : layers_) layer.recompute(policy);
}

void Transformer::reserve(ActivationMemory& memory, std::int64_t batch, DType dtype, DeviceKind target) {
  const BatchShape shape{.batch = batch, .sequence = shape_.sequence, .dtype = dtype, .target = target};
  for (Layer& layer : layers_ | std::views::reverse) layer.reserve(memory, shape);
  head_.reserve(memory, shape);
  d_x_ = memory.reserve("d_x", dtype, {shape.rows(), shape_.channels});
}

void Transformer::forward(const Pass& pass, const Tensor& tokens) const {
  embedding_.forward(pass, layers_.back().x(), tokens);
  Residual stream{layers_.back().x(), Tensor()};
  for (const Layer& layer : layers_ | std::views::reverse) stream = layer.forward(pass, stream);
  head_.forward(pass, stream);
}

void Transformer::loss_and_gradient(const Pass& pass, const Tensor& targets, const Tensor& loss_total,
                                    double loss_scale, double gradient_scale, bool accumulate_loss) const {
  head_.loss_and_gradient(pass, targets, loss_total, loss_scale, gradient_scale, accumulate_loss);
}

void Transformer::loss(const Pass& pass, const Tensor& targets, const Tensor& loss_total, double loss_scale,
                       bool accumulate_loss) const {
  head_.loss(pass, targets, loss_total, loss_scale, accumulate_loss);
}

void Transformer::backward(const Pass& pass, const Tensor& tokens) const {
  embedding_.begin_backward(pass, tokens);
  head_.backward(pass, d_x_, layers_.front().out_bias_gradient(pass));
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const bool last = i + 1 == layers_.size();
    layers_[i].backward(pass, d_x_, last ? Tensor() : layers_[i + 1].out_bias_gradient(pass));
  }
  embedding_.backward(pass, d_x_, tokens);
}

ParamLayout parameters_of(const TransformerShape& shape, SplitEmbedding split) {
  ParamLayout layout;
  const Transformer model(shape, layout, split);
  return layout;
}

}  // namespace strake::models
