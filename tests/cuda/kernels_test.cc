// Every CUDA kernel against the CPU device: shapes of training, odd sizes, both gradient types.
#include "kernels/attention.h"
#include "kernels/cross_entropy.h"
#include "kernels/device_limits.h"
#include "kernels/elementwise.h"
#include "kernels/embedding.h"
#include "kernels/fingerprint.h"
#include "kernels/layer_norm.h"
#include "kernels/matmul.h"
#include "kernels/optimizer.h"
#include "kernels/qkv_layout.h"
#include "kernels/rms_norm.h"
#include "kernels/rotary.h"
#include "kernels/swiglu.h"
#include "tests/cuda/two_devices.h"

namespace strake::test {
namespace {

using kernels::Accumulate;
using kernels::WeightLayout;

class CudaKernels : public ::testing::TestWithParam<Types> {
 protected:
  void SetUp() override { STRAKE_NEEDS_GPU(); }
  static Argument value(std::vector<std::int64_t> shape, std::uint32_t seed, float deviation = 1) {
    Argument argument{.shape = std::move(shape)};
    argument.values = normal(argument.elems(), seed, deviation);
    return argument;
  }
  static Argument output(std::vector<std::int64_t> shape, Role role = Role::kValue) {
    return {.shape = std::move(shape), .role = role};
  }
  static Argument gradient(std::vector<std::int64_t> shape, std::uint32_t seed) {
    Argument argument = value(std::move(shape), seed);
    argument.role = Role::kGradient;
    return argument;
  }
};

INSTANTIATE_TEST_SUITE_P(Types, CudaKernels,
                         ::testing::Values(Types{DType::kBF16, DType::kBF16}, Types{DType::kBF16, DType::kF32},
                                           Types{DType::kF32, DType::kF32}),
                         [](const auto& tested) {
                           return std::string(name_of(tested.param.value)) + "_" +
                                  std::string(name_of(tested.param.gradient));
                         });

std::vector<std::int64_t> weight_shape(WeightLayout layout, std::int64_t outs, std::int64_t ins) {
  return layout == WeightLayout::kOutIn ? std::vector{outs, ins} : std::vector{ins, outs};
}

TEST_P(CudaKernels, LinearForward) {
  for (const auto& [m, k, n] : {std::tuple{256, 64, 192}, std::tuple{1024, 768, 768}, std::tuple{40, 24, 8}}) {
    for (const WeightLayout layout : {WeightLayout::kOutIn, WeightLayout::kInOut}) {
      const Argument weight = value(weight_shape(layout, n, k), 2);
      expect_as_on_cpu(GetParam(), {output({m, n}), value({m, k}, 1), weight, value({n}, 3)}, {0},
                       [layout](Stream& stream, const std::vector<Tensor>& t) {
                         kernels::linear_forward(stream, {"test"}, {t[0], t[1], t[2], t[3], layout});
                       });
      expect_as_on_cpu(GetParam(), {output({m, n}), value({m, k}, 1), weight}, {0},
                       [layout](Stream& stream, const std::vector<Tensor>& t) {
                         kernels::linear_forward(stream, {"test"}, {t[0], t[1], t[2], Tensor(), layout});
                       });
    }
  }
}

TEST_P(CudaKernels, LinearBackward) {
  for (const auto& [m, k, n] : {std::tuple{256, 64, 192}, std::tuple{1000, 768, 256}, std::tuple{40, 24, 8}}) {
    for (const WeightLayout layout : {WeightLayout::kOutIn, WeightLayout::kInOut}) {
      const auto weights = weight_shape(layout, n, k);
      expect_as_on_cpu(GetParam(), {output({m, k}), value({m, n}, 1), value(weights, 2)}, {0},
                       [layout](Stream& stream, const std::vector<Tensor>& t) {
                         kernels::linear_backward_input(stream, {"test"}, {t[0], t[1], t[2], layout});
                       });
      expect_as_on_cpu(
          GetParam(),
          {output(weights, Role::kGradient), output({n}, Role::kGradient), value({m, n}, 3), value({m, k}, 4)}, {0, 1},
          [layout](Stream& stream, const std::vector<Tensor>& t) {
            kernels::linear_backward_weight(stream, {"test"}, {t[0], t[1], t[2], t[3], Accumulate::kOverwrite, layout});
          });
      expect_as_on_cpu(
          GetParam(), {gradient(weights, 5), gradient({n}, 6), value({m, n}, 3), value({m, k}, 4)}, {0, 1},
          [layout](Stream& stream, const std::vector<Tensor>& t) {
            kernels::linear_backward_weight(stream, {"test"}, {t[0], t[1], t[2], t[3], Accumulate::kAdd, layout});
          });
    }
  }
}

// Laid out for fewer multiprocessors, and for one.
TEST_P(CudaKernels, ProductsThatSpareMultiprocessors) {
  const auto cuda = make_cuda_device(0, kernels::cuda::make_kernels(true));
  const int all = cuda_facts(0).multiprocessors;
  for (const int spared : {8, all - 1}) {
    const auto spare = [&](Stream& stream) {
      if (KernelState* kernels = stream.device().kernel_state(); kernels != nullptr) kernels->spare({spared, spared});
    };
    expect_as_on_cpu(GetParam(), {output({1024, 768}), value({1024, 256}, 1), value({768, 256}, 2), value({768}, 3)},
                     {0}, [&](Stream& stream, const std::vector<Tensor>& t) {
                       spare(stream);
                       kernels::linear_forward(stream, {"test"}, {t[0], t[1], t[2], t[3]});
                     });
    expect_as_on_cpu(GetParam(), {output({1024, 256}), value({1024, 768}, 1), value({768, 256}, 2)}, {0},
                     [&](Stream& stream, const std::vector<Tensor>& t) {
                       spare(stream);
                       kernels::linear_backward_input(stream, {"test"}, {t[0], t[1], t[2]});
                     });
    expect_as_on_cpu(
        GetParam(),
        {output({768, 256}, Role::kGradient), output({768}, Role::kGradient), value({1024, 768}, 3),
         value({1024, 256}, 4)},
        {0, 1}, [&](Stream& stream, const std::vector<Tensor>& t) {
          spare(stream);
          kernels::linear_backward_weight(stream, {"test"}, {t[0], t[1], t[2], t[3], Accumulate::kOverwrite});
        });
  }
}

// Rows enough for some warps to take several, one behind the other.
TEST_P(CudaKernels, LayerNorm) {
  for (const auto& [rows, channels] :
       {std::pair{4300, 64}, std::pair{512, 768}, std::pair{600, 1000}, std::pair{1100, 1032}, std::pair{300, 1600},
        std::pair{560, 2056}, std::pair{9, 4096}, std::pair{540, 4104}, std::pair{33, 8192}, std::pair{20, 12296},
        std::pair{3, 20000}}) {
    expect_as_on_cpu(GetParam(),
                     {output({rows, channels}), output({rows}, Role::kStat), output({rows}, Role::kStat),
                      value({rows, channels}, 1, 3), value({channels}, 2), value({channels}, 3)},
                     {0, 1, 2}, [](Stream& stream, const std::vector<Tensor>& t) {
                       kernels::layer_norm_forward(stream, {"test"}, {t[0], t[1], t[2], t[3], t[4], t[5]});
                     });
    expect_as_on_cpu(
        GetParam(),
        {output({rows, channels}), output({rows, channels}), output({rows}, Role::kStat), output({rows}, Role::kStat),
         value({rows, channels}, 1), value({rows, channels}, 2), value({channels}, 3), value({channels}, 4)},
        {0, 1}, [](Stream& stream, const std::vector<Tensor>& t) {
          kernels::residual_layer_norm_forward(stream, {"test"}, {t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7]});
        });
    expect_as_on_cpu(GetParam(),
                     {output({rows, channels}), output({rows}, Role::kStat), output({rows}, Role::kStat),
                      value({rows, channels}, 1, 0.1f), value({channels}, 2), value({channels}, 3)},
                     {0, 1, 2}, [](Stream& stream, const std::vector<Tensor>& t) {
                       kernels::layer_norm_forward(stream, {"test"}, {t[0], t[1], t[2], t[3], t[4], t[5], 1e-2});
                     });
    for (const Accumulate accumulate : {Accumulate::kOverwrite, Accumulate::kAdd}) {
      const bool add = accumulate == Accumulate::kAdd;
      Argument mean{.shape = {rows}, .role = Role::kStat, .values = normal(rows, 5, 0.1f)};
      Argument rstd{
          .shape = {rows}, .role = Role::kStat, .values = std::vector<float>(static_cast<std::size_t>(rows), 0.9f)};
      expect_as_on_cpu(GetParam(),
                       {value({rows, channels}, 1), add ? gradient({channels}, 7) : output({channels}, Role::kGradient),
                        add ? gradient({channels}, 8) : output({channels}, Role::kGradient), value({rows, channels}, 2),
                        value({rows, channels}, 3), mean, rstd, value({channels}, 4)},
                       {0, 1, 2}, [accumulate](Stream& stream, const std::vector<Tensor>& t) {
                         kernels::layer_norm_backward(stream, {"test"},
                                                      {t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], accumulate});
                       });
      for (const Accumulate to_dx : {Accumulate::kOverwrite, Accumulate::kAdd}) {
        expect_as_on_cpu(GetParam(),
                         {to_dx == Accumulate::kAdd ? value({rows, channels}, 1) : output({rows, channels}),
                          gradient({channels}, 7), gradient({channels}, 8), value({rows, channels}, 2),
                          value({rows, channels}, 3), mean, rstd, value({channels}, 4), gradient({channels}, 9)},
                         {0, 1, 2, 8}, [&](Stream& stream, const std::vector<Tensor>& t) {
                           kernels::layer_norm_backward(
                               stream, {"test"},
                               {t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], accumulate, to_dx, t[8]});
                         });
      }
    }
  }
}

TEST_P(CudaKernels, GeluBackwardWithTheGradientOfABias) {
  for (const auto& [rows, columns] :
       {std::pair{300, 256}, std::pair{1000, 520}, std::pair{3, 3072}, std::pair{70, 33}}) {
    for (const Accumulate accumulate : {Accumulate::kOverwrite, Accumulate::kAdd}) {
      expect_as_on_cpu(
          GetParam(),
          {output({rows, columns}), value({rows, columns}, 1), value({rows, columns}, 2, 2), gradient({columns}, 3)},
          {0, 3}, [accumulate](Stream& stream, const std::vector<Tensor>& t) {
            kernels::gelu_backward(stream, {"test"}, {t[0], t[1], t[2], t[3], accumulate});
          });
    }
  }
}

TEST_P(CudaKernels, Gelu) {
  for (const int elems : {4096, 1003}) {
    expect_as_on_cpu(GetParam(), {output({elems}), value({elems}, 1, 2)}, {0},
                     [](Stream& stream, const std::vector<Tensor>& t) {
                       kernels::gelu_forward(stream, {"test"}, {t[0], t[1]});
                     });
    expect_as_on_cpu(GetParam(), {output({elems}), value({elems}, 1), value({elems}, 2, 2)}, {0},
                     [](Stream& stream, const std::vector<Tensor>& t) {
                       kernels::gelu_backward(stream, {"test"}, {t[0], t[1], t[2]});
                     });
    expect_as_on_cpu(GetParam(), {output({elems}), value({elems}, 1), value({elems}, 2)}, {0},
                     [](Stream& stream, const std::vector<Tensor>& t) {
                       kernels::add(stream, {"test"}, {t[0], t[1], t[2]});
                     });
  }
}

// Rows of a warp and of a block, whole and partly filled; more rows than warps or blocks at work.
TEST_P(CudaKernels, RmsNorm) {
  for (const auto& [rows, channels] :
       {std::pair{4300, 64}, std::pair{512, 768}, std::pair{1500, 264}, std::pair{130, 1600}, std::pair{1100, 1032},
        std::pair{560, 2056}, std::pair{9, 4096}, std::pair{540, 4104}, std::pair{2, 8192}, std::pair{2, 16384}}) {
    if (channels > kernels::limits_of(DeviceKind::kCuda, GetParam().value).most_rms_norm_channels) continue;
    SCOPED_TRACE(::testing::Message() << rows << " x " << channels);
    expect_as_on_cpu(
        GetParam(),
        {output({rows, channels}), output({rows}, Role::kStat), value({rows, channels}, 1, 3), value({channels}, 2)},
        {0, 1}, [](Stream& stream, const std::vector<Tensor>& t) {
          kernels::rms_norm_forward(stream, {"test"}, {t[0], t[1], t[2], t[3], 1e-5});
        });
    expect_as_on_cpu(GetParam(),
                     {output({rows, channels}), output({rows, channels}), output({rows}, Role::kStat),
                      value({rows, channels}, 1), value({rows, channels}, 2), value({channels}, 3)},
                     {0, 1, 2}, [](Stream& stream, const std::vector<Tensor>& t) {
                       kernels::residual_rms_norm_forward(stream, {"test"}, {t[0], t[1], t[2], t[3], t[4], t[5], 1e-6});
                     });
    expect_as_on_cpu(GetParam(),
                     {value({rows, channels}, 1), output({rows, channels}), output({rows}, Role::kStat),
                      value({rows, channels}, 2), value({channels}, 3)},
                     {0, 1, 2}, [](Stream& stream, const std::vector<Tensor>& t) {
                       kernels::residual_rms_norm_forward(stream, {"test"}, {t[0], t[1], t[2], t[0], t[3], t[4], 1e-6});
                     });
    for (const Accumulate accumulate : {Accumulate::kOverwrite, Accumulate::kAdd}) {
      const bool add = accumulate == Accumulate::kAdd;
      Argument rstd{.shape = {rows}, .role = Role::kStat, .values = normal(rows, 5, 0.1f)};
      for (float& value : rstd.values) value += 0.9f;
      expect_as_on_cpu(GetParam(),
                       {value({rows, channels}, 1), add ? gradient({channels}, 7) : output({channels}, Role::kGradient),
                        value({rows, channels}, 2), value({rows, channels}, 3), rstd, value({channels}, 4)},
                       {0, 1}, [accumulate](Stream& stream, const std::vector<Tensor>& t) {
                         kernels::rms_norm_backward(stream, {"test"}, {t[0], t[1], t[2], t[3], t[4], t[5], accumulate});
                       });
      for (const Accumulate to_dx : {Accumulate::kOverwrite, Accumulate::kAdd}) {
        expect_as_on_cpu(GetParam(),
                         {to_dx == Accumulate::kAdd ? value({rows, channels}, 1) : output({rows, channels}),
                          gradient({channels}, 7), value({rows, channels}, 2), value({rows, channels}, 3), rstd,
                          value({channels}, 4), gradient({channels}, 9)},
                         {0, 1, 6}, [&](Stream& stream, const std::vector<Tensor>& t) {
                           kernels::rms_norm_backward(stream, {"test"},
                                                      {t[0], t[1], t[2], t[3], t[4], t[5], accumulate, to_dx, t[6]});
                         });
      }
    }
  }
}

// Whole vectors and a rest.
TEST_P(CudaKernels, Swiglu) {
  for (const auto& [rows, columns] : {std::pair{64, 64}, std::pair{17, 59}, std::pair{1, 3}}) {
    expect_as_on_cpu(GetParam(), {output({rows, columns}), value({rows, 2 * columns}, 1, 2)}, {0},
                     [](Stream& stream, const std::vector<Tensor>& t) {
                       kernels::swiglu_forward(stream, {"test"}, {t[0], t[1]});
                     });
    expect_as_on_cpu(GetParam(),
                     {output({rows, 2 * columns}), value({rows, columns}, 1), value({rows, 2 * columns}, 2, 2)}, {0},
                     [](Stream& stream, const std::vector<Tensor>& t) {
                       kernels::swiglu_backward(stream, {"test"}, {t[0], t[1], t[2]});
                     });
    expect_as_on_cpu(GetParam(), {value({rows, 2 * columns}, 2, 2), value({rows, columns}, 1)}, {0},
                     [](Stream& stream, const std::vector<Tensor>& t) {
                       kernels::swiglu_backward(stream, {"test"}, {t[0], t[1], t[0]});
                     });
  }
}

// Heads of whole vectors and of others, of which a warp takes several at once or not even one; positions far out.
TEST_P(CudaKernels, Rotary) {
  using enum kernels::QkvLayout::Order;
  for (const auto& [batch, length, heads, kv_heads, size] :
       {std::tuple{2, 100, 3, 3, 64}, std::tuple{1, 37, 8, 2, 128}, std::tuple{3, 5, 5, 1, 80},
        std::tuple{2, 33, 6, 2, 72}, std::tuple{1, 7, 2, 1, 256}, std::tuple{1, 9000, 1, 1, 16},
        std::tuple{1, 3, 2, 2, 200}}) {
    SCOPED_TRACE(::testing::Message() << heads << " heads of " << size << ", " << kv_heads << " key heads");
    const kernels::QkvLayout by_kind{heads, kv_heads, size, kByKind}, by_group{heads, kv_heads, size, kByGroup};
    const int row = static_cast<int>(by_kind.row_elems());
    const std::vector<double> frequencies = kernels::rotary_frequencies(size, 10000);
    for (const kernels::QkvLayout& projected : {by_kind, by_group}) {
      expect_as_on_cpu(GetParam(), {output({batch, length, row}), value({batch, length, row}, 1)}, {0},
                       [&](Stream& stream, const std::vector<Tensor>& t) {
                         kernels::rotary_forward(stream, {"test"}, {t[0], t[1], by_kind, projected, frequencies});
                       });
      expect_as_on_cpu(GetParam(), {output({batch, length, row}), value({batch, length, row}, 1)}, {0},
                       [&](Stream& stream, const std::vector<Tensor>& t) {
                         kernels::rotary_backward(stream, {"test"}, {t[0], t[1], projected, by_kind, frequencies});
                       });
      expect_as_on_cpu(GetParam(), {value({batch, length, row}, 1)}, {0},
                       [&](Stream& stream, const std::vector<Tensor>& t) {
                         kernels::rotary_forward(stream, {"test"}, {t[0], t[0], projected, projected, frequencies});
                       });
    }
    expect_as_on_cpu(GetParam(), {output({batch, length, row}), value({batch, length, row}, 1)}, {0},
                     [&](Stream& stream, const std::vector<Tensor>& t) {
                       kernels::rotary_forward(stream, {"test"}, {t[0], t[1], by_kind, by_group, {}});
                     });
  }
}

// Key heads of their own, laid by kind and by group; shared by all query heads or some, whose number is odd or even;
// sequences of no whole blocks.
TEST_P(CudaKernels, Attention) {
  using enum kernels::QkvLayout::Order;
  using kernels::QkvLayout;
  for (const auto& [batch, length, layout] :
       {std::tuple{2, 128, QkvLayout{3, 3, 64, kByKind}}, std::tuple{1, 256, QkvLayout{2, 2, 128, kByKind}},
        std::tuple{2, 100, QkvLayout{3, 3, 64, kByGroup}}, std::tuple{1, 128, QkvLayout{8, 2, 64, kByKind}},
        std::tuple{2, 77, QkvLayout{5, 1, 64, kByKind}}, std::tuple{1, 130, QkvLayout{9, 3, 128, kByKind}}}) {
    SCOPED_TRACE(::testing::Message() << batch << " x " << length << ", " << layout.heads << " heads of "
                                      << layout.head_size << ", " << layout.kv_heads << " key heads");
    const std::int64_t channels = layout.heads * layout.head_size, row = layout.row_elems();
    const Argument qkv = value({batch, length, row}, 1);
    expect_as_on_cpu(GetParam(),
                     {output({batch, length, channels}), output({batch, layout.heads, length}, Role::kStat), qkv},
                     {0, 1}, [layout = layout](Stream& stream, const std::vector<Tensor>& t) {
                       const auto [q, k, v] = layout.views(t[2]);
                       kernels::attention_forward(stream, {"test"}, {t[0], t[1], q, k, v});
                     });
    // Backward reads what forward wrote on the same device.
    expect_as_on_cpu(GetParam(),
                     {output({batch, length, row}), value({batch, length, channels}, 2), qkv,
                      output({batch, length, channels}), output({batch, layout.heads, length}, Role::kStat)},
                     {0}, [layout = layout](Stream& stream, const std::vector<Tensor>& t) {
                       const auto [q, k, v] = layout.views(t[2]);
                       const auto [dq, dk, dv] = layout.views(t[0]);
                       kernels::attention_forward(stream, {"test"}, {t[3], t[4], q, k, v});
                       const std::int64_t scratch_elems = kernels::attention_backward_scratch_elems(
                           stream.device().target(), t[0].size(1), layout.head_size);
                       static thread_local std::unique_ptr<Arena> scratch;  // CPU only: beyond the arguments
                       Tensor work;
                       if (scratch_elems > 0) {
                         scratch = std::make_unique<Arena>("scratch", MemoryKind::kDevice);
                         work = Tensor::reserve(*scratch, t[0].dtype(), {scratch_elems});
                         if (stream.device().kind() != DeviceKind::kPlan) scratch->allocate(stream.device());
                       }
                       kernels::attention_backward(stream, {"test"}, {dq, dk, dv, t[1], q, k, v, t[3], t[4], work});
                       if (stream.device().kind() == DeviceKind::kCpu) stream.synchronize();
                       scratch.reset();
                     });
  }
}

TEST_P(CudaKernels, Embedding) {
  for (const auto& [batch, length, channels, vocab] : {std::tuple{4, 64, 128, 50}, std::tuple{3, 50, 64, 1000},
                                                       std::tuple{2, 700, 32, 2}, std::tuple{1, 5, 8200, 3}}) {
    const Argument ids{.shape = {batch, length}, .role = Role::kToken, .values = tokens(batch * length, vocab, 9)};
    expect_as_on_cpu(
        GetParam(),
        {output({batch, length, channels}), ids, value({vocab, channels}, 1), value({length + 3, channels}, 2)}, {0},
        [](Stream& stream, const std::vector<Tensor>& t) {
          kernels::embedding_forward(stream, {"test"}, {t[0], t[1], t[2], t[3]});
        });
    expect_as_on_cpu(GetParam(), {output({batch, length, channels}), ids, value({vocab, channels}, 1)}, {0},
                     [](Stream& stream, const std::vector<Tensor>& t) {
                       kernels::embedding_forward(stream, {"test"}, {t[0], t[1], t[2]});
                     });
    expect_as_on_cpu(
        GetParam(), {output({vocab, channels}, Role::kGradient), value({batch, length, channels}, 5, 0.1f), ids}, {0},
        [](Stream& stream, const std::vector<Tensor>& t) {
          kernels::embedding_backward(stream, {"test"},
                                      {t[0], Accumulate::kOverwrite, Tensor(), Accumulate::kOverwrite, t[1], t[2]});
        });
    expect_as_on_cpu(GetParam(),
                     {output({length + 3, channels}, Role::kGradient), value({batch, length, channels}, 5, 0.1f), ids},
                     {0}, [](Stream& stream, const std::vector<Tensor>& t) {
                       kernels::embedding_backward(
                           stream, {"test"}, {Tensor(), Accumulate::kAdd, t[0], Accumulate::kOverwrite, t[1], t[2]});
                     });
    // As the rows of all ranks are added to what their heads have summed.
    expect_as_on_cpu(GetParam(),
                     {gradient({vocab, channels}, 3),
                      value({1, batch * length, channels}, 5, 0.1f),
                      {.shape = {1, batch * length}, .role = Role::kToken, .values = ids.values}},
                     {0}, [](Stream& stream, const std::vector<Tensor>& t) {
                       kernels::embedding_backward(stream, {"test"},
                                                   {t[0], Accumulate::kAdd, Tensor(), Accumulate::kAdd, t[1], t[2]});
                     });
    Argument positions = gradient({length + 3, channels}, 4);
    for (const Accumulate accumulate : {Accumulate::kOverwrite, Accumulate::kAdd}) {
      const bool add = accumulate == Accumulate::kAdd;
      expect_as_on_cpu(
          GetParam(),
          {add ? gradient({vocab, channels}, 3) : output({vocab, channels}, Role::kGradient), positions,
           value({batch, length, channels}, 5, 0.1f), ids},
          {0, 1}, [accumulate](Stream& stream, const std::vector<Tensor>& t) {
            kernels::embedding_backward(stream, {"test"}, {t[0], accumulate, t[1], Accumulate::kAdd, t[2], t[3]});
          });
    }
  }
}

TEST_P(CudaKernels, CrossEntropy) {
  // Wide rows more than a GPU works on at once, in the shared memory of one block and of several; and wider than that.
  for (const auto& [rows, vocab, padded] :
       {std::tuple{64, 250, 256}, std::tuple{17, 5000, 5120}, std::tuple{300, 50257, 50304},
        std::tuple{3, 70000, 70016}, std::tuple{150, 128256, 128256}, std::tuple{50, 300001, 300032},
        std::tuple{2, 1000000, 1000000}}) {
    const Argument targets{.shape = {rows}, .role = Role::kToken, .values = tokens(rows, vocab, 9)};
    expect_as_on_cpu(GetParam(), {value({rows, padded}, 1, 2), output({rows}, Role::kStat), targets}, {0, 1},
                     [vocab = vocab](Stream& stream, const std::vector<Tensor>& t) {
                       kernels::cross_entropy_forward_backward(stream, {"test"}, {t[0], t[1], t[2], vocab, 0.25});
                     });
    expect_as_on_cpu(GetParam(), {value({rows, padded}, 1, 2), output({rows}, Role::kStat), targets}, {0, 1},
                     [vocab = vocab](Stream& stream, const std::vector<Tensor>& t) {
                       kernels::cross_entropy_forward(stream, {"test"}, {t[1], t[0], t[2], vocab});
                     });
  }
  const Argument losses{.shape = {1000}, .role = Role::kStat, .values = normal(1000, 3)};
  expect_as_on_cpu({DType::kF32, DType::kF32}, {output({1}, Role::kStat), losses}, {0},
                   [](Stream& stream, const std::vector<Tensor>& t) {
                     kernels::accumulate_loss(stream, {"test"}, {t[0], t[1], 0.5, false});
                     kernels::accumulate_loss(stream, {"test"}, {t[0], t[1], 0.5, true});
                   });
}

Argument scalars(const kernels::AdamWOptions& options, std::int64_t step) {
  const kernels::AdamWScalars values = kernels::adamw_scalars(options, 3e-3, step);
  return {.shape = {3}, .role = Role::kSum, .values = {values.begin(), values.end()}};
}

TEST_P(CudaKernels, Optimizer) {
  const std::vector<kernels::FlatSegment> segments{{0, 100, true}, {128, 40000, false}, {40192, 70000, true}};
  const std::int64_t elems = 110208;
  Argument gradients{.shape = {elems}, .role = Role::kGradient, .values = normal(elems, 1, 0.1f)};
  Argument weights{.shape = {elems}, .role = Role::kStat, .values = normal(elems, 2)};
  Argument first{.shape = {elems}, .role = Role::kStat, .values = normal(elems, 3, 0.1f)};
  Argument second{.shape = {elems}, .role = Role::kStat, .values = normal(elems, 4, 0.1f)};
  for (float& value : second.values) value *= value;
  for (std::int64_t i = 0; i < elems; ++i) {  // alignment gaps are zero
    const bool gap = (i >= 100 && i < 128) || (i >= 40128 && i < 40192) || i >= 110192;
    if (!gap) continue;
    for (Argument* argument : {&gradients, &weights, &first, &second})
      argument->values[static_cast<std::size_t>(i)] = 0;
  }
  const std::int64_t blocks = kernels::norm_blocks(segments);
  constexpr kernels::AdamWOptions kOptions = {0.9, 0.95, 1e-8, 0.1};
  const bool rounds = GetParam().value == DType::kBF16;
  expect_as_on_cpu(
      {DType::kF32, GetParam().gradient},
      {gradients, weights, first, second, output({1}, Role::kStat), output({1}, Role::kStat),
       output({blocks}, Role::kSum), scalars(kOptions, 7)},
      {1, 2, 3, 4, 5},
      [&](Stream& stream, const std::vector<Tensor>& t) {
        kernels::square_sums(stream, {"test"}, {t[6], t[0], segments});
        kernels::gradient_norm(stream, {"test"}, {t[4], t[5], t[6], 1.0});
        // A bf16 gradient goes with a rounded copy of the weights: here over the gradient, read before.
        const bool bf16 = t[0].dtype() == DType::kBF16;
        kernels::adamw(stream, {"test"},
                       {t[1], t[2], t[3], t[0], t[5], t[7], segments, kOptions, bf16 && rounds ? t[0] : Tensor()});
      },
      1e-5);
}

// More parameters than one table of the kernels holds.
TEST_P(CudaKernels, OptimizerOfManyParameters) {
  std::vector<kernels::FlatSegment> segments;
  std::int64_t elems = 0;
  for (std::int64_t i = 0; i < 4000; ++i) {
    segments.push_back({elems, 1 + i % 200, i % 3 == 0});
    elems += (segments.back().size_elems + 127) / 128 * 128;
  }
  const auto in_segments = [&](std::uint32_t seed, float deviation) {
    const std::vector<float> random = normal(elems, seed, deviation);
    std::vector<float> values(static_cast<std::size_t>(elems));
    for (const kernels::FlatSegment& segment : segments) {
      std::copy_n(random.begin() + segment.begin_elems, segment.size_elems, values.begin() + segment.begin_elems);
    }
    return values;
  };
  const Argument gradients{.shape = {elems}, .role = Role::kGradient, .values = in_segments(1, 0.1f)};
  const Argument weights{.shape = {elems}, .role = Role::kStat, .values = in_segments(2, 1)};
  const Argument zeros{
      .shape = {elems}, .role = Role::kStat, .values = std::vector<float>(static_cast<std::size_t>(elems))};
  const Argument rounded{.shape = {elems}, .role = Role::kValue, .values = zeros.values};
  const std::int64_t blocks = kernels::norm_blocks(segments);
  constexpr kernels::AdamWOptions kOptions = {0.9, 0.95, 1e-8, 0.1};
  expect_as_on_cpu(
      {GetParam().gradient, GetParam().gradient},
      {gradients, weights, zeros, zeros, output({1}, Role::kStat), output({1}, Role::kStat),
       output({blocks}, Role::kSum), scalars(kOptions, 1), rounded},
      {1, 2, 3, 4, 5, 6},
      [&](Stream& stream, const std::vector<Tensor>& t) {
        kernels::square_sums(stream, {"test"}, {t[6], t[0], segments});
        kernels::gradient_norm(stream, {"test"}, {t[4], t[5], t[6], 1.0});
        kernels::adamw(
            stream, {"test"},
            {t[1], t[2], t[3], t[0], t[5], t[7], segments, kOptions, t[0].dtype() == DType::kBF16 ? t[8] : Tensor()});
      },
      1e-5);
}

// From moments of zero, where the factor 1 - beta is all that counts.
TEST_P(CudaKernels, OptimizerWithSlowDecay) {
  const std::vector<kernels::FlatSegment> segments{{0, 1024, true}};
  const Argument gradients{.shape = {1024}, .role = Role::kGradient, .values = normal(1024, 1)};
  const Argument weights{.shape = {1024}, .role = Role::kStat, .values = normal(1024, 2)};
  const Argument zeros{.shape = {1024}, .role = Role::kStat, .values = std::vector<float>(1024)};
  const Argument clip{.shape = {1}, .role = Role::kStat, .values = {1.0f}};
  const Argument rounded{.shape = {1024}, .role = Role::kValue, .values = std::vector<float>(1024)};
  const bool bf16 = GetParam().gradient == DType::kBF16;
  constexpr kernels::AdamWOptions kOptions = {0.9999, 0.999999, 1e-8, 0.1};
  expect_as_on_cpu(
      {GetParam().gradient, GetParam().gradient},
      {gradients, weights, zeros, zeros, clip, rounded, scalars(kOptions, 1)}, {1, 2, 3},
      [&](Stream& stream, const std::vector<Tensor>& t) {
        kernels::adamw(stream, {"test"},
                       {t[1], t[2], t[3], t[0], t[4], t[6], segments, kOptions,
                        bf16 && t[0].dtype() == DType::kBF16 ? t[5] : Tensor()});
      },
      1e-5);
}

TEST_P(CudaKernels, ANormThatIsNotFiniteClipsToNaN) {
  const std::vector<kernels::FlatSegment> segments{{0, 1024, true}};
  const auto cuda = make_cuda_device(0, kernels::cuda::make_kernels(true));
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    for (const double max_norm : {1.0, 0.0}) {
      Argument gradients{.shape = {1024}, .role = Role::kGradient, .values = normal(1024, 1)};
      gradients.values[700] = bad;
      const auto out = run_on(*cuda, GetParam(),
                              {gradients,
                               output({1}, Role::kStat),
                               {.shape = {1}, .role = Role::kStat, .values = {1}},
                               output({kernels::norm_blocks(segments)}, Role::kSum)},
                              [&](Stream& stream, const std::vector<Tensor>& t) {
                                kernels::square_sums(stream, {"test"}, {t[3], t[0], segments});
                                kernels::gradient_norm(stream, {"test"}, {t[1], t[2], t[3], max_norm});
                              });
      EXPECT_FALSE(std::isfinite(out[1][0]));
      EXPECT_TRUE(std::isnan(out[2][0])) << out[2][0] << " for " << bad << ", clipped at " << max_norm;
    }
  }
}

TEST_P(CudaKernels, Cast) {
  if (GetParam().value != DType::kBF16) return;
  const auto cuda = make_cuda_device(0, kernels::cuda::make_kernels(true));
  const Argument from{.shape = {1001}, .role = Role::kStat, .values = normal(1001, 1)};
  const auto out = run_on(*cuda, GetParam(), {output({1001}), from, output({1001}, Role::kStat)},
                          [](Stream& stream, const std::vector<Tensor>& t) {
                            kernels::cast(stream, {"test"}, {t[0], t[1]});
                            kernels::cast(stream, {"test"}, {t[2], t[0]});
                          });
  for (std::size_t i = 0; i < 1001; ++i) EXPECT_EQ(out[2][i], to_float(to_bfloat16(from.values[i])));
}

// `place`: where in its arena the data lies.
std::int64_t fingerprint_on(Device& device, const std::vector<std::uint8_t>& bytes, std::int64_t place = 0) {
  Arena memory("data", MemoryKind::kDevice), host("staging", MemoryKind::kHost);
  const auto size = static_cast<std::int64_t>(bytes.size());
  const Tensor data = Tensor::reserve(memory, DType::kU8, {place + size}).flat(place, size);
  const Tensor staged = Tensor::reserve(host, DType::kU8, {size});
  const Tensor out = Tensor::reserve(memory, DType::kI64, {1}), read = Tensor::reserve(host, DType::kI64, {1});
  memory.allocate(device);
  host.allocate(device);
  std::ranges::copy(bytes, host_span<std::uint8_t>(staged).begin());
  const auto stream = device.make_stream("compute", StreamPriority::kNormal);
  stream->copy({"upload"}, data, staged);
  kernels::fingerprint(*stream, {"test"}, {out, data});
  kernels::fingerprint(*stream, {"test"}, {out, data});  // over what is there
  stream->copy({"download"}, read, out);
  stream->synchronize();
  return host_span<std::int64_t>(read)[0];
}

TEST(CudaFingerprint, HasTheBitsOfTheCpus) {
  STRAKE_NEEDS_GPU();
  const auto cpu = make_cpu_device();
  const auto cuda = make_cuda_device(0, nullptr);
  std::mt19937 random(31);
  for (const std::size_t size_bytes : {1u, 7u, 8u, 9u, 15u, 16u, 17u, 31u, 4096u, 100003u, 20000008u}) {
    std::vector<std::uint8_t> bytes(size_bytes);
    for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random());
    const std::int64_t whole = fingerprint_on(*cuda, bytes);
    EXPECT_EQ(whole, fingerprint_on(*cpu, bytes)) << size_bytes << " bytes";
    EXPECT_EQ(whole, static_cast<std::int64_t>(kernels::fingerprint(std::as_bytes(std::span(bytes)))));
    for (const std::int64_t place : {1, 2, 4, 8, 12, 16}) {
      EXPECT_EQ(fingerprint_on(*cuda, bytes, place), whole) << size_bytes << " bytes at " << place;
    }
    bytes[size_bytes / 2] ^= 1;
    EXPECT_NE(fingerprint_on(*cuda, bytes), whole) << size_bytes << " bytes";
  }
}

}  // namespace
}  // namespace strake::test
