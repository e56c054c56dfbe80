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

#include "kernels/cpu/bodies.h"
#include "kernels/cpu/code.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/layer_norm.h"
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

// f32 tensors of normal values.
class Operands {
 public:
  Tensor tensor(std::initializer_list<std::int64_t> shape) {
    return tensors_.emplace_back(Tensor::reserve(arena_, DType::kF32, shape));
  }
  // Behind the last tensor().
  void fill() {
    arena_.allocate(*device_);
    for (const Tensor& tensor : tensors_) {
      const Floats values = normal(tensor.elems());
      std::copy(values.begin(), values.end(), strake::cpu::data<float>(tensor));
    }
  }

 private:
  std::unique_ptr<Device> device_ = make_cpu_device();
  Arena arena_{"operands", MemoryKind::kDevice};
  std::vector<Tensor> tensors_;
};

void run_all(Bench& bench, const kernels::cpu::KernelTable<float>& table, CpuCode code, const Shapes& s) {
  const std::int64_t rows = s.batch * s.length, c = s.channels;
  const auto bytes = [](std::int64_t elems) { return static_cast<double>(elems) * sizeof(float); };

  const struct {
    const char* name;
    std::int64_t outs, ins;
  } layers[] = {{"qkv", 3 * c, c}, {"proj", c, c}, {"fc", 4 * c, c}, {"fc_proj", c, 4 * c}, {"head", s.vocab, c}};
  for (const auto& [name, outs, ins] : layers) {
    const Floats x = normal(rows * ins), weight = normal(outs * ins), bias = normal(outs);
    Floats y = normal(rows * outs), dweight = normal(outs * ins), dbias = normal(outs), dx = normal(rows * ins);
    const double flops = 2.0 * static_cast<double>(rows * outs * ins);
    const double moved = bytes(rows * (outs + ins) + outs * ins);
    const std::string layer = std::string(" ") + name;
    bench.run("linear_forward" + layer, flops, moved, [&, outs = outs, ins = ins] {
      table.linear_forward(y.data(), x.data(), weight.data(), bias.data(), rows, outs, ins);
    });
    bench.run("linear_backward_weight" + layer, flops, moved, [&, outs = outs, ins = ins] {
      table.linear_backward_weight(dweight.data(), y.data(), x.data(), rows, outs, ins, true);
    });
    bench.run("column_sums" + layer, 0, bytes(rows * outs),
              [&, outs = outs] { table.column_sums(dbias.data(), y.data(), rows, outs, false); });
    bench.run("linear_backward_input" + layer, flops, moved, [&, outs = outs, ins = ins] {
      table.linear_backward_input(dx.data(), y.data(), weight.data(), rows, outs, ins);
    });
  }

  const reference::AttentionShape shape = {s.batch, s.length, s.heads, c / s.heads};
  const Floats qkv = normal(rows * 3 * c), dout = normal(rows * c);
  Floats out = normal(rows * c), stats = normal(s.batch * s.heads * s.length), dqkv = normal(rows * 3 * c);
  Floats scratch = normal(kernels::cpu::attention_backward_scratch_elems(shape));
  const double product_flops = static_cast<double>(rows * (s.length + 1) * c);  // the causal half
  bench.run("attention_forward", 2 * product_flops, bytes(4 * rows * c),
            [&] { table.attention_forward(out.data(), stats.data(), qkv.data(), shape); });
  bench.run("attention_backward", 5 * product_flops, bytes(8 * rows * c), [&] {
    table.attention_backward(dqkv.data(), dout.data(), qkv.data(), out.data(), stats.data(), scratch.data(), shape);
  });

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
  }

  const Floats x = normal(rows * c), delta = normal(rows * c);
  Floats x_out = normal(rows * c), y = normal(rows * c);
  const Floats wide = normal(rows * 4 * c), dwide = normal(rows * 4 * c);
  Floats wide_out = normal(rows * 4 * c);
  bench.run("gelu_forward", 0, bytes(2 * rows * 4 * c),
            [&] { table.gelu_forward(wide_out.data(), wide.data(), rows * 4 * c); });
  bench.run("gelu_backward", 0, bytes(3 * rows * 4 * c),
            [&] { table.gelu_backward(wide_out.data(), dwide.data(), wide.data(), rows * 4 * c); });
  bench.run("add", 0, bytes(3 * rows * c), [&] { table.add(y.data(), x.data(), delta.data(), rows * c); });

  std::vector<std::int32_t> tokens(static_cast<std::size_t>(rows));
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = static_cast<std::int32_t>(i * 7919 % static_cast<std::size_t>(s.vocab));
  }
  Floats token_table = normal(s.vocab * c), position_table = normal(s.length * c);
  bench.run("embedding_forward", 0, bytes(3 * rows * c), [&] {
    table.embedding_forward(x_out.data(), tokens.data(), token_table.data(), position_table.data(), s.batch, s.length,
                            c);
  });
  bench.run("embedding_backward", 0, bytes(6 * rows * c), [&] {
    table.embedding_backward_tokens(token_table.data(), x.data(), tokens.data(), rows, c, s.vocab, false);
    table.embedding_backward_positions(position_table.data(), x.data(), s.batch, s.length, c, s.length, false);
  });

  Floats logits = normal(rows * s.vocab), losses = normal(rows);
  bench.run("cross_entropy_forward_backward", 0, bytes(2 * rows * s.vocab), [&] {
    table.cross_entropy_forward_backward(logits.data(), losses.data(), tokens.data(), rows, s.vocab, s.vocab, 1e-3f);
  });

  const std::int64_t params = 12 * c * c;  // one block's
  Floats w = normal(params), m = normal(params), v = normal(params), g = normal(params);
  for (float& value : v) value *= value;
  double sum = 0;
  bench.run("sum_of_squares (one block)", 0, bytes(params), [&] {
    for (std::int64_t i = 0; i < params; i += kNormBlockElems) {
      sum += table.sum_of_squares(g.data() + i, std::min(kNormBlockElems, params - i));
    }
  });
  if (sum < 0) std::puts("");  // the sums are used
  bench.run("adamw (one block)", 0, bytes(7 * params), [&] {
    table.adamw(w.data(), m.data(), v.data(), g.data(), params, 1.0f,
                {.beta1 = 0.9,
                 .one_minus_beta1 = 0.1,
                 .beta2 = 0.95,
                 .one_minus_beta2 = 0.05,
                 .epsilon = 1e-8,
                 .step_size = 1e-6,
                 .second_moment_scale = 1,
                 .keep = 1});
  });
  std::uint64_t print = 0;
  bench.run("fingerprint (one block)", 0, bytes(params),
            [&] { print += table.fingerprint(reinterpret_cast<const std::byte*>(w.data()), 4 * params); });
  if (print == 1) std::puts("");
}

}  // namespace

int main(int argc, char** argv) {
  Shapes shapes;
  double seconds = 6;
  bool json = false, smoke = false;
  std::string table_name = kernels::cpu::f32_kernel_tables().front().name;
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

  const auto& tables = kernels::cpu::f32_kernel_tables();
  const auto chosen = std::find_if(tables.begin(), tables.end(), [&](const auto& t) { return t.name == table_name; });
  if (chosen == tables.end()) {
    std::fprintf(stderr, "kernels_bench: no table '%s' on this CPU; there are:", table_name.c_str());
    for (const auto& table : tables) std::fprintf(stderr, " %s", table.name.c_str());
    std::fprintf(stderr, "\n");
    return 10;
  }
  constexpr double kKernels = 32;
  Bench bench(seconds / kKernels);
  run_all(bench, chosen->table, CpuCode::all()[static_cast<std::size_t>(chosen - tables.begin())], shapes);

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
