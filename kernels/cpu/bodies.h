// Bodies of the operations on the CPU device: resolve the tensors, then call the kernel table. The arguments have been
// checked by kernels/<operation>.cc.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/optimizer.h"
#include "kernels/optimizer.h"
#include "runtime/device/device.h"

namespace strake::kernels::cpu {

Body linear_forward(const Tensor& y, const Tensor& x, const Tensor& weight, const Tensor& bias);
Body linear_backward_weight(const Tensor& dweight, const Tensor& dbias, const Tensor& dy, const Tensor& x,
                            bool accumulate);
Body linear_backward_input(const Tensor& dx, const Tensor& dy, const Tensor& weight);

Body attention_forward(const Tensor& out, const Tensor& stats, const Tensor& qkv,
                       const reference::AttentionShape& shape);
Body attention_backward(const Tensor& dqkv, const Tensor& dout, const Tensor& qkv, const Tensor& out,
                        const Tensor& stats, const Tensor& scratch, const reference::AttentionShape& shape);
std::int64_t attention_backward_scratch_elems(const reference::AttentionShape& shape);

Body gelu_forward(const Tensor& y, const Tensor& x);
Body gelu_backward(const Tensor& dx, const Tensor& dy, const Tensor& x);
Body add(const Tensor& y, const Tensor& a, const Tensor& b);
// Empty when there is no such cast.
Body cast(const Tensor& dst, const Tensor& src);

Body embedding_forward(const Tensor& x, const Tensor& tokens, const Tensor& token_table, const Tensor& position_table);
Body embedding_backward(const Tensor& dtoken_table, bool accumulate_token, const Tensor& dposition_table,
                        bool accumulate_position, const Tensor& dx, const Tensor& tokens);

Body cross_entropy_forward_backward(const Tensor& logits, const Tensor& losses, const Tensor& targets,
                                    std::int64_t vocab, double gradient_scale);
Body cross_entropy_forward(const Tensor& losses, const Tensor& logits, const Tensor& targets, std::int64_t vocab);
Body accumulate_loss(const Tensor& total, const Tensor& losses, double scale, bool accumulate);

Body gradient_norm(const Tensor& norm, const Tensor& clip, const Tensor& block_sums, const Tensor& gradients,
                   std::span<const FlatSegment> segments, double max_norm);
Body adamw(const Tensor& weights, const Tensor& first_moment, const Tensor& second_moment, const Tensor& gradients,
           const Tensor& clip, std::span<const FlatSegment> segments, const AdamWStep& step);

Body fingerprint(const Tensor& out, const Tensor& data);

}  // namespace strake::kernels::cpu
