#include "models/blocks/attention.h"

#include "kernels/attention.h"
#include "kernels/rotary.h"
#include "models/blocks/initial_deviation.h"

namespace strake::models {
namespace {

using kernels::QkvLayout;

QkvLayout by_group(const TransformerShape& shape) {
  return {shape.heads, shape.kv_heads, shape.head_size, QkvLayout::Order::kByGroup};
}

QkvLayout with_views(QkvLayout layout) {
  if (!layout.has_views()) layout.order = QkvLayout::Order::kByKind;
  return layout;
}

std::vector<double> frequencies_of(const TransformerShape& shape) {
  if (shape.positions != Positions::kRotary) return {};
  std::optional<kernels::RotaryScaling> scaling;
  if (shape.rotary_scaling.has_value()) {
    scaling = {.factor = shape.rotary_scaling->factor,
               .low_freq_factor = shape.rotary_scaling->low_frequency_factor,
               .high_freq_factor = shape.rotary_scaling->high_frequency_factor,
               .original_positions = shape.rotary_scaling->original_sequence};
  }
  return kernels::rotary_frequencies(shape.head_size, shape.rotary_base, scaling);
}

}  // namespace

AttentionBlock::AttentionBlock(ParamLayout& layout, const TransformerShape& shape, const std::string& name)
    : name_(name),
      rotary_name_(name + ".rotary"),
      channels_(shape.channels),
      projected_layout_(by_group(shape)),
      attended_layout_(with_views(projected_layout_)),
      frequencies_(frequencies_of(shape)),
      out_projection_(layout, name + ".proj",
                      {.ins = shape.query_channels(),
                       .outs = shape.channels,
                       .bias = shape.biases == Biases::kAll,
                       .deviation = residual_deviation(shape),
                       .cut = LinearShape::Cut::kIns}),
      qkv_projection_(layout, name + ".qkv",
                      {.ins = shape.channels,
                       .outs = shape.qkv_channels(),
                       .bias = shape.biases != Biases::kNone,
                       .deviation = kInitialDeviation,
                       .cut = LinearShape::Cut::kOuts,
                       .group_rows = {projected_layout_.group() * shape.head_size, shape.head_size, shape.head_size}}) {
}

void AttentionBlock::reserve(ActivationMemory& memory, const BatchShape& batch) {
  const std::int64_t b = batch.batch, t = batch.sequence;
  const std::int64_t heads = projected_layout_.heads, query_channels = heads * projected_layout_.head_size;
  const auto reserve = [&](const char* name, std::initializer_list<std::int64_t> dims) {
    return memory.reserve(name_ + name, batch.dtype, dims);
  };
  const bool in_place = attended_layout_.order == projected_layout_.order;
  qkv_ = reserve(".qkv", {b, t, projected_layout_.row_elems()});
  heads_ = in_place ? qkv_ : reserve(".heads", {b, t, projected_layout_.row_elems()});
  attended_ = reserve("", {b, t, query_channels});
  stats_ = memory.reserve(name_ + ".stats", batch.stats(), {b, heads, t});
  out_ = reserve(".proj", {batch.rows(), channels_});
  d_attended_ = reserve(".d_attn", {b, t, query_channels});
  d_heads_ = reserve(".d_heads", {b, t, projected_layout_.row_elems()});
  d_qkv_ = in_place ? d_heads_ : reserve(".d_qkv", {b, t, projected_layout_.row_elems()});
  d_x_ = reserve(".d_x", {batch.rows(), channels_});
  const std::int64_t scratch_elems =
      kernels::attention_backward_scratch_elems(batch.target, t, projected_layout_.head_size);
  if (scratch_elems > 0) scratch_ = reserve(".scratch", {scratch_elems});
}

void AttentionBlock::forward(const Pass& pass, const Tensor& x) const {
  qkv_projection_.forward(pass, qkv_.reshape({x.size(0), projected_layout_.row_elems()}), x);
  if (!frequencies_.empty() || attended_layout_.order != projected_layout_.order) {
    kernels::rotary_forward(pass.compute, pass.forward(rotary_name_),
                            {.y = heads_,
                             .x = qkv_,
                             .y_layout = attended_layout_,
                             .x_layout = projected_layout_,
                             .frequencies = frequencies_});
  }
  const auto [q, k, v] = attended_layout_.views(heads_);
  kernels::attention_forward(pass.compute, pass.forward(name_),
                             {.out = attended_, .stats = stats_, .q = q, .k = k, .v = v});
  out_projection_.forward(pass, out_, attended_.reshape({x.size(0), attended_.size(2)}));
}

void AttentionBlock::backward(const Pass& pass, const Tensor& d_out, const Tensor& x) const {
  const std::int64_t n = x.size(0), query_channels = attended_.size(2);
  out_projection_.backward_weight(pass, d_out, attended_.reshape({n, query_channels}), Linear::BiasGradient::kMade);
  out_projection_.backward_input(pass, d_attended_.reshape({n, query_channels}), d_out);
  const auto [q, k, v] = attended_layout_.views(heads_);
  const auto [dq, dk, dv] = attended_layout_.views(d_heads_);
  kernels::attention_backward(pass.compute, pass.backward(name_),
                              {.dq = dq,
                               .dk = dk,
                               .dv = dv,
                               .dout = d_attended_,
                               .q = q,
                               .k = k,
                               .v = v,
                               .out = attended_,
                               .stats = stats_,
                               .scratch = scratch_});
  if (!frequencies_.empty() || attended_layout_.order != projected_layout_.order) {
    kernels::rotary_backward(pass.compute, pass.backward(rotary_name_),
                             {.dx = d_qkv_,
                              .dy = d_heads_,
                              .x_layout = projected_layout_,
                              .y_layout = attended_layout_,
                              .frequencies = frequencies_});
  }
  const Tensor d_qkv = d_qkv_.reshape({n, projected_layout_.row_elems()});
  qkv_projection_.backward_weight(pass, d_qkv, x);
  qkv_projection_.backward_input(pass, d_x_, d_qkv);
}

}  // namespace strake::models
