#include "kernels/cuda/bodies.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "kernels/cuda/body.h"
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/launches.h"
#include "kernels/device_limits.h"
#include "kernels/fingerprint.h"
#include "runtime/base/check.h"
#include "runtime/device/cuda/cuda_call.h"
#include "runtime/device/param_spec.h"

namespace strake::kernels::cuda {
namespace {

Type type_of(const Tensor& tensor) {
  STRAKE_CHECK(tensor.dtype() == DType::kBF16 || tensor.dtype() == DType::kF32,
               "CUDA kernels compute in bf16 and f32, not " + std::string(name_of(tensor.dtype())));
  return tensor.dtype() == DType::kBF16 ? Type::kBF16 : Type::kF32;
}

Operand operand(const Tensor& tensor) { return {at(tensor), type_of(tensor)}; }
cudaStream_t stream_of(NativeStream native) { return static_cast<cudaStream_t>(native.handle); }
void* workspace_of(NativeStream native) { return reinterpret_cast<void*>(native.workspace.value); }

// A body that runs `launch` and reports what the launch itself got wrong.
template <typename Launch>
Body checked(Launch launch) {
  return [launch = std::move(launch)](NativeStream native) {
    launch(native);
    STRAKE_CUDA(cudaGetLastError());
  };
}

// What the .cu files know of the constants in kernels/, whose headers nvcc does not see.
static_assert(kFingerprintStep == kernels::kFingerprintStep && kFingerprintMix1 == kernels::kFingerprintMix1 &&
              kFingerprintMix2 == kernels::kFingerprintMix2);
static_assert(kNormBlockElems == kernels::kNormBlockElems);
static_assert(kGroupElems == ParamLayout::kAlignmentElems);
static_assert(kMaxSegments == limits_of(DeviceKind::kCuda, DType::kF32).most_segments);

AttentionShape attention_shape(const Tensor& qkv, int heads) {
  const AttentionShape shape{qkv.size(0), qkv.size(1), heads, qkv.size(2) / 3 / heads};
  const DeviceLimits limits = limits_of(DeviceKind::kCuda, qkv.dtype());
  STRAKE_CHECK(shape.head_size % limits.head_size_step == 0 && shape.head_size <= limits.most_head_size,
               fmt::format("attention: CUDA kernels take heads of a multiple of {} and at most {} channels, not {}",
                           limits.head_size_step, limits.most_head_size, shape.head_size));
  check_tokens("attention", qkv.dtype(), shape.batch, shape.batch * shape.sequence);
  return shape;
}

}  // namespace

Body linear_forward(Device& device, Operation& operation, const Tensor& y, const Tensor& x, const Tensor& weight,
                    const Tensor& bias) {
  Matmuls& matmuls = CudaKernels::of(device).matmuls();
  const MatmulProblem problem{
      .kind = MatmulProblem::Kind::kForward,
      .epilogue = bias.defined() ? MatmulProblem::Epilogue::kBias : MatmulProblem::Epilogue::kNone,
      .rows = x.size(0),
      .ins = x.size(1),
      .outs = weight.size(0),
      .type = type_of(x),
      .out_type = type_of(y),
      .accumulate = false};
  STRAKE_CHECK(matmuls.prepare(problem), "cuBLASLt has no algorithm for " + problem.describe());
  operation.workspace_bytes = Matmuls::kWorkspaceBytes;
  return checked([=, &matmuls](NativeStream native) {
    matmuls.run(stream_of(native), problem, at(weight), at(x), at(y), at(bias), workspace_of(native));
  });
}

Body linear_backward_weight(Device& device, Operation& operation, const Tensor& dweight, const Tensor& dbias,
                            const Tensor& dy, const Tensor& x, bool accumulate) {
  Matmuls& matmuls = CudaKernels::of(device).matmuls();
  MatmulProblem problem{.kind = MatmulProblem::Kind::kBackwardWeight,
                        .epilogue = MatmulProblem::Epilogue::kNone,
                        .rows = x.size(0),
                        .ins = x.size(1),
                        .outs = dy.size(1),
                        .type = type_of(dy),
                        .out_type = type_of(dweight),
                        .accumulate = accumulate};
  // The bias gradient comes out of the product where cuBLASLt can do that; it cannot add to what is there.
  bool fused = false;
  if (dbias.defined() && !accumulate && type_of(dbias) == problem.out_type) {
    MatmulProblem with_bias = problem;
    with_bias.epilogue = MatmulProblem::Epilogue::kBiasGradient;
    fused = matmuls.prepare(with_bias);
    if (fused) problem = with_bias;
  }
  STRAKE_CHECK(matmuls.prepare(problem), "cuBLASLt has no algorithm for " + problem.describe());
  operation.workspace_bytes = std::max(Matmuls::kWorkspaceBytes, column_sum_workspace_bytes(problem.outs));
  return checked([=, &matmuls](NativeStream native) {
    matmuls.run(stream_of(native), problem, at(x), at(dy), at(dweight), fused ? at(dbias) : nullptr,
                workspace_of(native));
    if (dbias.defined() && !fused) {
      column_sum(stream_of(native), operand(dbias), problem.type, at(dy), accumulate, problem.rows, problem.outs,
                 workspace_of(native));
    }
  });
}

Body linear_backward_input(Device& device, Operation& operation, const Tensor& dx, const Tensor& dy,
                           const Tensor& weight) {
  Matmuls& matmuls = CudaKernels::of(device).matmuls();
  const MatmulProblem problem{.kind = MatmulProblem::Kind::kBackwardInput,
                              .epilogue = MatmulProblem::Epilogue::kNone,
                              .rows = dy.size(0),
                              .ins = weight.size(1),
                              .outs = dy.size(1),
                              .type = type_of(dy),
                              .out_type = type_of(dx),
                              .accumulate = false};
  STRAKE_CHECK(matmuls.prepare(problem), "cuBLASLt has no algorithm for " + problem.describe());
  operation.workspace_bytes = Matmuls::kWorkspaceBytes;
  return checked([=, &matmuls](NativeStream native) {
    matmuls.run(stream_of(native), problem, at(weight), at(dy), at(dx), nullptr, workspace_of(native));
  });
}

Body attention_forward(Device& device, Operation& operation, const Tensor& out, const Tensor& stats, const Tensor& qkv,
                       int heads) {
  const AttentionShape shape = attention_shape(qkv, heads);
  if (qkv.dtype() == DType::kF32) {
    return checked([=](NativeStream native) {
      plain_attention_forward(stream_of(native), shape, at<float>(out), at<float>(stats), at<const float>(qkv));
    });
  }
  Attentions& attentions = CudaKernels::of(device).attentions();
  operation.workspace_bytes = attentions.prepare_forward(shape);
  return checked([=, &attentions](NativeStream native) {
    attentions.forward(stream_of(native), shape, at(out), at<float>(stats), at(qkv), workspace_of(native));
  });
}

Body attention_backward(Device& device, Operation& operation, const Tensor& dqkv, const Tensor& dout, const Tensor& qkv,
                        const Tensor& out, const Tensor& stats, int heads) {
  const AttentionShape shape = attention_shape(qkv, heads);
  if (qkv.dtype() == DType::kF32) {
    return checked([=](NativeStream native) {
      plain_attention_backward(stream_of(native), shape, at<float>(dqkv), at<const float>(dout), at<const float>(qkv),
                               at<const float>(out), at<const float>(stats));
    });
  }
  Attentions& attentions = CudaKernels::of(device).attentions();
  operation.workspace_bytes = attentions.prepare_backward(shape);
  return checked([=, &attentions](NativeStream native) {
    attentions.backward(stream_of(native), shape, at(dqkv), at(dout), at(qkv), at(out), at<float>(stats),
                        workspace_of(native));
  });
}

Body gelu_forward(const Tensor& y, const Tensor& x) {
  return checked([=](NativeStream native) { gelu_forward(stream_of(native), type_of(x), at(y), at(x), x.elems()); });
}
Body gelu_backward(const Tensor& dx, const Tensor& dy, const Tensor& x) {
  return checked(
      [=](NativeStream native) { gelu_backward(stream_of(native), type_of(x), at(dx), at(dy), at(x), x.elems()); });
}
Body add(const Tensor& y, const Tensor& a, const Tensor& b) {
  return checked([=](NativeStream native) { add(stream_of(native), type_of(a), at(y), at(a), at(b), a.elems()); });
}
Body cast(const Tensor& dst, const Tensor& src) {
  STRAKE_CHECK(type_of(dst) != type_of(src), "cast to the same type");
  return checked([=](NativeStream native) { cast(stream_of(native), operand(dst), operand(src), src.elems()); });
}

Body embedding_forward(const Tensor& x, const Tensor& tokens, const Tensor& token_table, const Tensor& position_table) {
  check_rows("embedding", x, x.size(2));
  check_tokens("embedding", x.dtype(), x.size(0), tokens.elems());
  return checked([=](NativeStream native) {
    embedding_forward(stream_of(native), type_of(x), at(x), at<const std::int32_t>(tokens), at(token_table),
                      at(position_table), x.size(0), x.size(1), x.size(2));
  });
}

Body embedding_backward(Operation& operation, const Tensor& dtoken_table, bool accumulate_token,
                        const Tensor& dposition_table, bool accumulate_position, const Tensor& dx,
                        const Tensor& tokens) {
  check_rows("embedding", dx, dx.size(2));
  check_tokens("embedding", dx.dtype(), dx.size(0), tokens.elems());
  operation.workspace_bytes = embedding_backward_workspace_bytes(tokens.elems(), dx.size(2));
  return checked([=](NativeStream native) {
    const std::int64_t unused_rows = dposition_table.size(0) - dx.size(1);
    if (!accumulate_position && unused_rows > 0) {
      const Tensor unused = dposition_table.slice(0, dx.size(1), unused_rows);
      STRAKE_CUDA(cudaMemsetAsync(at(unused), 0, unused.extent_bytes(), stream_of(native)));
    }
    STRAKE_CUDA(embedding_backward(stream_of(native), type_of(dx), operand(dtoken_table), accumulate_token,
                                   operand(dposition_table), accumulate_position, at(dx),
                                   at<const std::int32_t>(tokens), dx.size(0), dx.size(1), dx.size(2),
                                   dtoken_table.size(0), workspace_of(native)));
  });
}

Body cross_entropy(const Tensor& logits, const Tensor& losses, const Tensor& targets, std::int64_t vocab,
                   double gradient_scale, bool gradient) {
  STRAKE_CHECK(logits.size(1) % static_cast<std::int64_t>(16 / size_bytes(logits.dtype())) == 0,
               "cross_entropy: CUDA kernels take a padded vocabulary of whole 16-byte vectors");
  return checked([=](NativeStream native) {
    cross_entropy(stream_of(native), type_of(logits), at(logits), at<float>(losses), at<const std::int32_t>(targets),
                  logits.size(0), vocab, logits.size(1), static_cast<float>(gradient_scale), gradient);
  });
}

Body accumulate_loss(const Tensor& total, const Tensor& losses, double scale, bool accumulate) {
  return checked([=](NativeStream native) {
    accumulate_loss(stream_of(native), at<float>(total), at<const float>(losses), losses.elems(), scale, accumulate);
  });
}

namespace {

// Segments in the units of the kernels: groups of elements, as ParamLayout aligns them.
std::shared_ptr<const SegmentTable> table_of(std::span<const FlatSegment> segments, const Tensor& flat) {
  STRAKE_CHECK(segments.size() <= kMaxSegments,
               fmt::format("{} parameters; the CUDA optimizer takes {}", segments.size(), kMaxSegments));
  auto table = std::make_shared<SegmentTable>(flat.elems());  // shared: bodies are copyable
  for (const FlatSegment& segment : segments) table->add(segment.begin_elems, segment.size_elems, segment.weight_decay);
  return table;
}

}  // namespace

Body gradient_norm(const Tensor& norm, const Tensor& clip, const Tensor& block_sums, const Tensor& gradients,
                   std::span<const FlatSegment> segments, double max_norm) {
  return checked([=, table = table_of(segments, gradients)](NativeStream native) {
    gradient_norm(stream_of(native), at<float>(norm), at<float>(clip), at<double>(block_sums), operand(gradients),
                  *table, max_norm);
  });
}

Body adamw(const Tensor& weights, const Tensor& first_moment, const Tensor& second_moment,
           const Tensor& compute_weights, const Tensor& gradients, const Tensor& clip,
           std::span<const FlatSegment> segments, const AdamWStep& step) {
  const AdamW values(step.learning_rate, step.beta1, step.beta2, step.epsilon, step.weight_decay, step.step);
  return checked([=, table = table_of(segments, weights)](NativeStream native) {
    adamw(stream_of(native), at<float>(weights), at<float>(first_moment), at<float>(second_moment), operand(gradients),
          at(compute_weights), at<float>(clip), *table, values);
  });
}

Body fingerprint(const Tensor& out, const Tensor& data) {
  return checked([=](NativeStream native) {
    STRAKE_CUDA(cudaMemsetAsync(at(out), 0, out.extent_bytes(), stream_of(native)));
    fingerprint(stream_of(native), at(out), at(data), static_cast<std::int64_t>(data.extent_bytes()));
  });
}

}  // namespace strake::kernels::cuda
