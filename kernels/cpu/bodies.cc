#include "kernels/cpu/bodies.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "kernels/cpu/kernel_table.h"
#include "runtime/device/cpu/cpu_memory.h"

namespace strake::kernels::cpu {
namespace {

using strake::cpu::data;

// A body that runs `run.operator()<T>()` with T the C++ type of `dtype`, f32 or f64.
template <typename Run>
Body body_for(DType dtype, Run run) {
  if (dtype == DType::kF64) return [run = std::move(run)](NativeStream) { run.template operator()<double>(); };
  return [run = std::move(run)](NativeStream) { run.template operator()<float>(); };
}

}  // namespace

Body linear_forward(const Tensor& y, const Tensor& x, const Tensor& weight, const Tensor& bias) {
  return body_for(y.dtype(), [=]<typename T>() {
    kernel_table<T>().linear_forward(data<T>(y), data<T>(x), data<T>(weight), bias.defined() ? data<T>(bias) : nullptr,
                                     y.size(0), y.size(1), x.size(1));
  });
}

Body linear_backward_weight(const Tensor& dweight, const Tensor& dbias, const Tensor& dy, const Tensor& x,
                            bool accumulate) {
  return body_for(dweight.dtype(), [=]<typename T>() {
    kernel_table<T>().linear_backward_weight(data<T>(dweight), data<T>(dy), data<T>(x), dy.size(0), dy.size(1),
                                             x.size(1), accumulate);
    if (dbias.defined()) {
      kernel_table<T>().column_sums(data<T>(dbias), data<T>(dy), dy.size(0), dy.size(1), accumulate);
    }
  });
}

Body linear_backward_input(const Tensor& dx, const Tensor& dy, const Tensor& weight) {
  return body_for(dx.dtype(), [=]<typename T>() {
    kernel_table<T>().linear_backward_input(data<T>(dx), data<T>(dy), data<T>(weight), dy.size(0), dy.size(1),
                                            dx.size(1));
  });
}

Body attention_forward(const Tensor& out, const Tensor& stats, const Tensor& qkv,
                       const reference::AttentionShape& shape) {
  return body_for(out.dtype(), [=]<typename T>() {
    kernel_table<T>().attention_forward(data<T>(out), data<T>(stats), data<T>(qkv), shape);
  });
}

Body attention_backward(const Tensor& dqkv, const Tensor& dout, const Tensor& qkv, const Tensor& out,
                        const Tensor& stats, const Tensor& scratch, const reference::AttentionShape& shape) {
  return body_for(dqkv.dtype(), [=]<typename T>() {
    kernel_table<T>().attention_backward(data<T>(dqkv), data<T>(dout), data<T>(qkv), data<T>(out), data<T>(stats),
                                         data<T>(scratch), shape);
  });
}

std::int64_t attention_backward_scratch_elems(const reference::AttentionShape& shape) {
  // dK and dV of one head, rows padded to whole vectors (of 16 floats at most).
  return 2 * shape.length * ((shape.head_size + 15) / 16 * 16);
}

Body gelu_forward(const Tensor& y, const Tensor& x) {
  return body_for(y.dtype(), [=]<typename T>() { kernel_table<T>().gelu_forward(data<T>(y), data<T>(x), y.elems()); });
}

Body gelu_backward(const Tensor& dx, const Tensor& dy, const Tensor& x) {
  return body_for(dx.dtype(), [=]<typename T>() {
    kernel_table<T>().gelu_backward(data<T>(dx), data<T>(dy), data<T>(x), dx.elems());
  });
}

Body add(const Tensor& y, const Tensor& a, const Tensor& b) {
  return body_for(y.dtype(),
                  [=]<typename T>() { kernel_table<T>().add(data<T>(y), data<T>(a), data<T>(b), y.elems()); });
}

Body cast(const Tensor& dst, const Tensor& src) {
  const auto from_to = [&]<typename To, typename From>(To, From) -> Body {
    return [=](NativeStream) { reference::cast(data<To>(dst), data<From>(src), dst.elems()); };
  };
  const std::pair types(dst.dtype(), src.dtype());
  if (types == std::pair(DType::kF32, DType::kF32)) return from_to(float(), float());
  if (types == std::pair(DType::kF64, DType::kF64)) return from_to(double(), double());
  if (types == std::pair(DType::kF64, DType::kF32)) return from_to(double(), float());
  if (types == std::pair(DType::kF32, DType::kF64)) return from_to(float(), double());
  if (types == std::pair(DType::kBF16, DType::kF32)) return from_to(BFloat16(), float());
  if (types == std::pair(DType::kF32, DType::kBF16)) return from_to(float(), BFloat16());
  return {};
}

Body embedding_forward(const Tensor& x, const Tensor& tokens, const Tensor& token_table, const Tensor& position_table) {
  return body_for(x.dtype(), [=]<typename T>() {
    kernel_table<T>().embedding_forward(data<T>(x), data<std::int32_t>(tokens), data<T>(token_table),
                                        data<T>(position_table), x.size(0), x.size(1), x.size(2));
  });
}

Body embedding_backward(const Tensor& dtoken_table, bool accumulate_token, const Tensor& dposition_table,
                        bool accumulate_position, const Tensor& dx, const Tensor& tokens) {
  return body_for(dx.dtype(), [=]<typename T>() {
    const KernelTable<T>& table = kernel_table<T>();
    table.embedding_backward_tokens(data<T>(dtoken_table), data<T>(dx), data<std::int32_t>(tokens), tokens.elems(),
                                    dx.size(2), dtoken_table.size(0), accumulate_token);
    table.embedding_backward_positions(data<T>(dposition_table), data<T>(dx), dx.size(0), dx.size(1), dx.size(2),
                                       dposition_table.size(0), accumulate_position);
  });
}

Body cross_entropy_forward_backward(const Tensor& logits, const Tensor& losses, const Tensor& targets,
                                    std::int64_t vocab, double gradient_scale) {
  return body_for(logits.dtype(), [=]<typename T>() {
    kernel_table<T>().cross_entropy_forward_backward(data<T>(logits), data<T>(losses), data<std::int32_t>(targets),
                                                     logits.size(0), vocab, logits.size(1),
                                                     static_cast<T>(gradient_scale));
  });
}

Body cross_entropy_forward(const Tensor& losses, const Tensor& logits, const Tensor& targets, std::int64_t vocab) {
  return body_for(logits.dtype(), [=]<typename T>() {
    kernel_table<T>().cross_entropy_forward(data<T>(losses), data<T>(logits), data<std::int32_t>(targets),
                                            logits.size(0), vocab, logits.size(1));
  });
}

Body accumulate_loss(const Tensor& total, const Tensor& losses, double scale, bool accumulate) {
  return body_for(total.dtype(), [=]<typename T>() {
    kernel_table<T>().accumulate_loss(data<T>(total), data<T>(losses), losses.elems(), scale, accumulate);
  });
}

Body gradient_norm(const Tensor& norm, const Tensor& clip, const Tensor& block_sums, const Tensor& gradients,
                   std::span<const FlatSegment> segments, double max_norm) {
  return body_for(gradients.dtype(), [=, segments = std::vector(segments.begin(), segments.end())]<typename T>() {
    double* block_sum = data<double>(block_sums);
    double total = 0;
    for (const FlatSegment& segment : segments) {
      for (std::int64_t done = 0; done < segment.size_elems; done += kNormBlockElems) {
        *block_sum = kernel_table<T>().sum_of_squares(data<T>(gradients) + segment.begin_elems + done,
                                                      std::min(kNormBlockElems, segment.size_elems - done));
        total += *block_sum++;
      }
    }
    const double root = std::sqrt(total);
    double factor = max_norm > 0 ? std::min(1.0, max_norm / (root + 1e-6)) : 1.0;
    if (!std::isfinite(root)) factor = std::numeric_limits<double>::quiet_NaN();
    data<T>(norm)[0] = static_cast<T>(root);
    data<T>(clip)[0] = static_cast<T>(factor);
  });
}

Body adamw(const Tensor& weights, const Tensor& first_moment, const Tensor& second_moment, const Tensor& gradients,
           const Tensor& clip, std::span<const FlatSegment> segments, const AdamWStep& step) {
  const double steps = static_cast<double>(step.step);
  const reference::AdamWScalars plain = {
      .beta1 = step.beta1,
      .one_minus_beta1 = 1 - step.beta1,
      .beta2 = step.beta2,
      .one_minus_beta2 = 1 - step.beta2,
      .epsilon = step.epsilon,
      .step_size = step.learning_rate / (1 - std::pow(step.beta1, steps)),
      .second_moment_scale = 1 / (1 - std::pow(step.beta2, steps)),
      .keep = 1,
  };
  reference::AdamWScalars decaying = plain;
  decaying.keep = 1 - step.learning_rate * step.weight_decay;
  return body_for(weights.dtype(), [=, segments = std::vector(segments.begin(), segments.end())]<typename T>() {
    const T factor = data<T>(clip)[0];
    for (const FlatSegment& segment : segments) {
      kernel_table<T>().adamw(data<T>(weights) + segment.begin_elems, data<T>(first_moment) + segment.begin_elems,
                              data<T>(second_moment) + segment.begin_elems, data<T>(gradients) + segment.begin_elems,
                              segment.size_elems, factor, segment.weight_decay ? decaying : plain);
    }
  });
}

Body fingerprint(const Tensor& out, const Tensor& tensor) {
  return [=](NativeStream) {
    const std::uint64_t sum =
        kernel_table<float>().fingerprint(strake::cpu::bytes(tensor), static_cast<std::int64_t>(tensor.extent_bytes()));
    data<std::int64_t>(out)[0] = static_cast<std::int64_t>(sum);
  };
}

}  // namespace strake::kernels::cpu
