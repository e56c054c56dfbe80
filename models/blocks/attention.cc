#include "models/blocks/attention.h"

#include "kernels/attention.h"
#include "models/blocks/initial_deviation.h"

namespace strake::models {

AttentionBlock::AttentionBlock(ParamLayout& layout, const TransformerShape& shape, const std::string& name)
    : shape_(shape),
      name_(name),
      projection_(layout, name + ".proj", shape.query_channels(), shape.channels, shape.biases == Biases::kAll,
                  residual_deviation(shape)),
      qkv_projection_(layout, name + ".qkv", shape.channels, shape.qkv_channels(), shape.qkv_biases(),
                      kInitialDeviation) {}

void AttentionBlock::reserve(ActivationMemory& memory, const BatchShape& batch) {
  const std::int64_t n = batch.rows(), c = shape_.channels;
  const auto reserve = [&](const char* name, std::initializer_list<std::int64_t> dims) {
    return memory.reserve(name_ + name, batch.dtype, dims);
  };
  qkv_ = reserve(".qkv", {batch.batch, batch.sequence, shape_.qkv_channels()});
  attended_ = reserve("", {batch.batch, batch.sequence, shape_.query_channels()});
  stats_ = memory.reserve(name_ + ".stats", batch.stats(), {batch.batch, shape_.heads, batch.sequence});
  projected_ = reserve(".proj", {n, c});
  d_attended_ = reserve(".d_attn", {batch.batch, batch.sequence, shape_.query_channels()});
  d_qkv_ = reserve(".d_qkv", {batch.batch, batch.sequence, shape_.qkv_channels()});
  d_x_ = reserve(".d_x", {n, c});
  const std::int64_t scratch_elems =
      kernels::attention_backward_scratch_elems(batch.target, batch.sequence, shape_.head_size);
  if (scratch_elems > 0) scratch_ = reserve(".scratch", {scratch_elems});
}

void AttentionBlock::forward(const Pass& pass, const Tensor& x) const {
  const std::int64_t n = x.size(0);
  qkv_projection_.forward(pass, qkv_.reshape({n, shape_.qkv_channels()}), x);
  const auto [q, k, v] = layout().views(qkv_);
  kernels::attention_forward(pass.compute, pass.forward(name_), {attended_, stats_, q, k, v});
  projection_.forward(pass, projected_, attended_.reshape({n, shape_.query_channels()}));
}

void AttentionBlock::backward(const Pass& pass, const Tensor& d_out, const Tensor& x) const {
  const std::int64_t n = x.size(0);
  const Tensor d_qkv = d_qkv_.reshape({n, shape_.qkv_channels()});
  projection_.backward_weight(pass, d_out, attended_.reshape({n, shape_.query_channels()}));
  projection_.backward_input(pass, d_attended_.reshape({n, shape_.query_channels()}), d_out);
  const auto [q, k, v] = layout().views(qkv_);
  const auto [dq, dk, dv] = layout().views(d_qkv_);
  kernels::attention_backward(pass.compute, pass.backward(name_),
                              {dq, dk, dv, d_attended_, q, k, v, attended_, stats_, scratch_});
  qkv_projection_.backward_weight(pass, d_qkv, x);
  qkv_projection_.backward_input(pass, d_x_, d_qkv);
}

}  // namespace strake::models
