// How fast is each CPU kernel at the shapes of a small GPT? Prints median, spread and rate of each; --json for
// machines.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "kernels/attention.h"
#include "kernels/cpu/code.h"
#include "kernels/cross_entropy.h"
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
#include "runtime/device/cpu/cpu_device.h"
#include "runtime/device/cpu/cpu_memory.h"

namespace {

using namespace strake;
using namespace strake::kernels;
using Floats = std::vector<float>;

struct Shapes {
  std::int64_t batch = 8;
  std::int64_t length = 256;
  std::int64_t channels = 256;
  std::int64_t heads = 8;
  std::int64_t vocab = 256;
};

struct Timing {
  std::string kernel;
  double median_us;
  double lowest_us;
  double highest_us;
  double gflop_per_s;  // 0: no matrix product
  double gb_per_s;
};

Floats normal(std::int64_t elems, float deviation = 1) {
  static std::mt19937_64 engine(1);
  std::normal_distribution<float> distribution(0, deviation);
  Floats values(static_cast<std::size_t>(elems));
  for (float& value : values) value = distribution(engine);
  return values;
}

class Bench {
 public:
  explicit Bench(double seconds_each) : seconds_each_(seconds_each) {}

  void run(std::string kernel, double flops, double bytes, const Body& body) {
    run(std::move(kernel), flops, bytes, [&] { body({}); });
  }
  void run(std::string kernel, double flops, double bytes, const std::function<void()>& call) {
    using Clock = std::chrono::steady_clock;
    call();
    std::vector<double> us;
    const auto end = Clock::now() + std::chrono::duration<double>(seconds_each_);
    do {
      const auto start = Clock::now();
      call();
      us.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
    } while (Clock::now() < end || us.size() < 3);
    std::sort(us.begin(), us.end());
    const double median = us[us.size() / 2];
    // Spread: the middle 80 % of the repeats.
    timings_.push_back({std::move(kernel), median, us[us.size() / 10], us[us.size() - 1 - us.size() / 10],
                        flops / median * 1e-3, bytes / median * 1e-3});
  }

  const std::vector<Timing>& timings() const { return timings_; }

 private:
  double seconds_each_;
  std::vector<Timing> timings_;
};

// Tensors of one operation: normal values in f32, given tokens, zeros of other types.
class Operands {
 public:
  Tensor tensor(std::initializer_list<std::int64_t> shape, DType dtype = DType::kF32) {
    return tensors_.emplace_back(Tensor::reserve(arena_, dtype, shape));
  }
  Tensor tokens(std::initializer_list<std::int64_t> shape, std::int64_t vocab) {
    vocab_ = vocab;
    return tensor(shape, DType::kI32);
  }
  // Behind the last tensor().
  void fill() {
    arena_.allocate(*device_);
    for (const Tensor& tensor : tensors_) {
      if (tensor.dtype() == DType::kF32) {
        std::ranges::copy(normal(tensor.elems()), strake::cpu::data<float>(tensor));
      } else if (tensor.dtype() == DType::kI32) {
        for (std::int64_t i = 0; i < tensor.elems(); ++i)
          strake::cpu::data<std::int32_t>(tensor)[i] = static_cast<std::int32_t>(i * 7919 % vocab_);
      }
    }
  }

 private:
  std::unique_ptr<Device> device_ = make_cpu_device();
  Arena arena_{"operands", MemoryKind::kDevice};
  std::vector<Tensor> tensors_;
  std::int64_t vocab_ = 0;
};

void run_all(Bench& bench, CpuCode code, const Shapes& s) {
  const std::int64_t rows = s.batch * s.length, c = s.channels;
  const auto bytes = [](std::int64_t elems) { return static_cast<double>(elems) * sizeof(float); };

  const struct {
    const char* name;
    std::int64_t outs, ins;
    WeightLayout layout = WeightLayout::kOutIn;
  } layers[] = {{"qkv", 3 * c, c},   {"proj", c, c},        {"proj, in_out", c, c, WeightLayout::kInOut},
                {"fc", 4 * c, c},    {"fc_proj", c, 4 * c}, {"fc_proj, in_out", c, 4 * c, WeightLayout::kInOut},
                {"head", s.vocab, c}};
  for (const auto& [name, outs, ins, layout] : layers) {
    const bool out_in = layout == WeightLayout::kOutIn;
    Operands at;
    const Tensor x = at.tensor({rows, ins}), weight = at.tensor({out_in ? outs : ins, out_in ? ins : outs}),
                 bias = at.tensor({outs});
    const Tensor y = at.tensor({rows, outs}), dweight = at.tensor({out_in ? outs : ins, out_in ? ins : outs}),
                 dbias = at.tensor({outs}), dx = at.tensor({rows, ins});
    at.fill();
    const double flops = 2.0 * static_cast<double>(rows * outs * ins);
    const double moved = bytes(rows * (outs + ins) + outs * ins);
    const std::string layer = std::string(" ") + name;
    bench.run("linear_forward" + layer, flops, moved, LinearForward{y, x, weight, bias, layout}.on_cpu(code));
    bench.run("linear_backward_weight" + layer, flops, moved,
              LinearBackwardWeight{dweight, Tensor(), y, x, Accumulate::kAdd, layout}.on_cpu(code));
    bench.run("the same and bias" + layer, flops, moved + bytes(rows * outs),
              LinearBackwardWeight{dweight, dbias, y, x, Accumulate::kAdd, layout}.on_cpu(code));
    bench.run("linear_backward_input" + layer, flops, moved, LinearBackwardInput{dx, y, weight, layout}.on_cpu(code));
  }

  {
    Operands at;
    const std::int64_t size = c / s.heads;
    const QkvLayout layout{s.heads, s.heads, size};
    const Tensor qkv = at.tensor({s.batch, s.length, 3 * c}), dqkv = at.tensor({s.batch, s.length, 3 * c});
    const Tensor out = at.tensor({s.batch, s.length, c}), dout = at.tensor({s.batch, s.length, c});
    const Tensor stats = at.tensor({s.batch, s.heads, s.length});
    const Tensor scratch = at.tensor({attention_backward_scratch_elems(DeviceKind::kCpu, s.length, size)});
    at.fill();
    const auto [q, k, v] = layout.views(qkv);
    const auto [dq, dk, dv] = layout.views(dqkv);
    const double product_flops = static_cast<double>(rows * (s.length + 1) * c);  // the causal half
    bench.run("attention_forward", 2 * product_flops, bytes(4 * rows * c),
              AttentionForward{out, stats, q, k, v}.on_cpu(code));
    bench.run("attention_backward", 4 * product_flops, bytes(8 * rows * c),
              AttentionBackward{dq, dk, dv, dout, q, k, v, out, stats, scratch}.on_cpu(code));
    const std::vector<double> frequencies = rotary_frequencies(size, 10000);
    bench.run("rotary_forward", 0, bytes(6 * rows * c),
              RotaryForward{dqkv, qkv, layout, layout, frequencies}.on_cpu(code));
  }

  {
    Operands at;
    const Tensor x = at.tensor({rows, c}), y = at.tensor({rows, c}), x_out = at.tensor({rows, c});
    const Tensor delta = at.tensor({rows, c}), dx = at.tensor({rows, c}), mean = at.tensor({rows}),
                 rstd = at.tensor({rows});
    const Tensor weight = at.tensor({c}), bias = at.tensor({c}), dweight = at.tensor({c}), dbias = at.tensor({c});
    at.fill();
    bench.run("layer_norm_forward", 0, bytes(2 * rows * c),
              LayerNormForward{y, mean, rstd, x, weight, bias}.on_cpu(code));
    bench.run("residual_layer_norm_forward", 0, bytes(4 * rows * c),
              ResidualLayerNormForward{x_out, y, mean, rstd, x, delta, weight, bias}.on_cpu(code));
    bench.run("layer_norm_backward", 0, bytes(4 * rows * c),
              LayerNormBackward{dx, dweight, dbias, y, x, mean, rstd, weight, Accumulate::kOverwrite}.on_cpu(code));
    bench.run("rms_norm_forward", 0, bytes(2 * rows * c), RmsNormForward{y, rstd, x, weight, 1e-5}.on_cpu(code));
    bench.run("residual_rms_norm_forward", 0, bytes(4 * rows * c),
              ResidualRmsNormForward{x_out, y, rstd, x, delta, weight, 1e-5}.on_cpu(code));
    bench.run("rms_norm_backward", 0, bytes(4 * rows * c),
              RmsNormBackward{dx, dweight, y, x, rstd, weight, Accumulate::kOverwrite}.on_cpu(code));
  }

  {
    Operands at;
    const Tensor y = at.tensor({rows, 4 * c}), x = at.tensor({rows, 8 * c}), dx = at.tensor({rows, 8 * c});
    at.fill();
    bench.run("swiglu_forward", 0, bytes(3 * rows * 4 * c), SwigluForward{y, x}.on_cpu(code));
    bench.run("swiglu_backward", 0, bytes(5 * rows * 4 * c), SwigluBackward{dx, y, x}.on_cpu(code));
  }

  {
    Operands at;
    const Tensor wide = at.tensor({rows * 4 * c}), dwide = at.tensor({rows * 4 * c}),
                 mapped = at.tensor({rows * 4 * c});
    at.fill();
    bench.run("gelu_forward", 0, bytes(2 * rows * 4 * c), GeluForward{mapped, wide}.on_cpu(code));
    bench.run("gelu_backward", 0, bytes(3 * rows * 4 * c), GeluBackward{mapped, dwide, wide}.on_cpu(code));
    bench.run("add", 0, bytes(3 * rows * 4 * c), Add{mapped, wide, dwide}.on_cpu(code));
  }
  {
    Operands at;
    const Tensor tokens = at.tokens({s.batch, s.length}, s.vocab), targets = tokens.reshape({rows});
    const Tensor x = at.tensor({s.batch, s.length, c}), token_table = at.tensor({s.vocab, c}),
                 position_table = at.tensor({s.length, c});
    const Tensor logits = at.tensor({rows, s.vocab}), losses = at.tensor({rows});
    at.fill();
    bench.run("embedding_forward", 0, bytes(3 * rows * c),
              EmbeddingForward{x, tokens, token_table, position_table}.on_cpu(code));
    bench.run("embedding_backward", 0, bytes(6 * rows * c),
              EmbeddingBackward{token_table, Accumulate::kOverwrite, position_table, Accumulate::kOverwrite, x, tokens}
                  .on_cpu(code));
    bench.run("cross_entropy_forward_backward", 0, bytes(2 * rows * s.vocab),
              CrossEntropyForwardBackward{logits, losses, targets, s.vocab, 1e-3}.on_cpu(code));
  }
  {
    const std::int64_t params = 12 * c * c;  // one block's
    const FlatSegment segments[] = {{0, params, true}};
    Operands at;
    const Tensor w = at.tensor({params}), m = at.tensor({params}), v = at.tensor({params}), g = at.tensor({params});
    const Tensor clip = at.tensor({1}), scalars = at.tensor({3}, DType::kF64);
    const Tensor sums = at.tensor({norm_blocks(segments)}, DType::kF64), print = at.tensor({1}, DType::kI64);
    at.fill();
    constexpr AdamWOptions kOptions = {0.9, 0.95, 1e-8, 0.1};
    std::ranges::copy(adamw_scalars(kOptions, 1e-6, 1), strake::cpu::data<double>(scalars));
    bench.run("square_sums (one block)", 0, bytes(params), SquareSums{sums, g, segments}.on_cpu(code));
    bench.run("adamw (one block)", 0, bytes(7 * params),
              AdamW{w, m, v, g, clip, scalars, segments, kOptions}.on_cpu(code));
    bench.run("fingerprint (one block)", 0, bytes(params), Fingerprint{print, w}.on_cpu(code));
  }
}

}  // namespace

int main(int argc, char** argv) {
  Shapes shapes;
  double seconds = 6;
  bool json = false, smoke = false;
  std::string table_name = CpuCode::fastest().name();
  CLI::App app("Times the CPU kernels at the shapes of a small GPT, one thread");
  app.add_option("--seconds", seconds, "for all kernels together");
  app.add_flag("--json", json, "one JSON object on stdout");
  app.add_flag("--smoke", smoke, "small shapes, less than a second");
  app.add_option("--table", table_name,
                 "which kernels: avx512+onednn, avx2, baseline, reference, as this CPU has them");
  app.add_option("--batch", shapes.batch);
  app.add_option("--length", shapes.length, "tokens in a sequence");
  app.add_option("--channels", shapes.channels);
  app.add_option("--heads", shapes.heads);
  app.add_option("--vocab", shapes.vocab);
  CLI11_PARSE(app, argc, argv);
  if (smoke) {
    seconds = 0.2;
    shapes = {.batch = 2, .length = 64, .channels = 64, .heads = 2, .vocab = 256};
  }

  const std::vector<CpuCode>& all = CpuCode::all();
  const auto chosen =
      std::find_if(all.begin(), all.end(), [&](const CpuCode& code) { return code.name() == table_name; });
  if (chosen == all.end()) {
    std::fprintf(stderr, "kernels_bench: no kernels '%s' on this CPU; there are:", table_name.c_str());
    for (const CpuCode& code : all) std::fprintf(stderr, " %s", code.name().c_str());
    std::fprintf(stderr, "\n");
    return 10;
  }
  constexpr double kKernels = 45;
  Bench bench(seconds / kKernels);
  run_all(bench, *chosen, shapes);

  if (json) {
    nlohmann::json report = {{"bench", "kernels"},          {"table", table_name},
                             {"batch", shapes.batch},       {"length", shapes.length},
                             {"channels", shapes.channels}, {"heads", shapes.heads},
                             {"vocab", shapes.vocab},       {"kernels", nlohmann::json::array()}};
    for (const Timing& t : bench.timings()) {
      report["kernels"].push_back({{"kernel", t.kernel},
                                   {"median_us", t.median_us},
                                   {"p10_us", t.lowest_us},
                                   {"p90_us", t.highest_us},
                                   {"gflop_per_s", t.gflop_per_s},
                                   {"gb_per_s", t.gb_per_s}});
    }
    std::printf("%s\n", report.dump(2).c_str());
    return 0;
  }
  std::printf("%s kernels, one thread: batch %lld, length %lld, channels %lld, heads %lld, vocab %lld\n",
              table_name.c_str(), static_cast<long long>(shapes.batch), static_cast<long long>(shapes.length),
              static_cast<long long>(shapes.channels), static_cast<long long>(shapes.heads),
              static_cast<long long>(shapes.vocab));
  std::printf("%-34s %10s %21s %9s %8s\n", "", "median us", "10 % .. 90 %", "GFLOP/s", "GB/s");
  for (const Timing& t : bench.timings()) {
    std::printf("%-34s %10.1f %10.1f %10.1f %9.1f %8.1f\n", t.kernel.c_str(), t.median_us, t.lowest_us, t.highest_us,
                t.gflop_per_s, t.gb_per_s);
  }
  return 0;
}
