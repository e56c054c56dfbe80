#include "kernels/cpu/onednn/matmul.h"

#include <fmt/format.h>

#include <array>
#include <map>
#include <oneapi/dnnl/dnnl.hpp>

#include "runtime/base/error.h"

// Of the OpenMP runtime that oneDNN is linked with; declared here because nothing of ours is compiled as OpenMP.
extern "C" void omp_set_num_threads(int threads);

namespace strake::kernels::cpu {
namespace {

using dnnl::memory;

[[noreturn]] void fail(std::string_view what, std::string_view message) {
  throw DeviceError(fmt::format("oneDNN failed in {}: {}", what, message));
}

// The calling thread computes alone from here on. OpenMP keeps this number for each thread.
void use_one_thread() {
  thread_local const bool done = (omp_set_num_threads(1), true);
  static_cast<void>(done);
}

// y [rows, outs] = x [rows, ins] weight[outs, ins]^T + bias, compiled for one shape.
class LinearForward {
 public:
  LinearForward(std::int64_t rows, std::int64_t outs, std::int64_t ins, bool bias)
      : engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {
    const memory::desc x({rows, ins}, memory::data_type::f32, memory::dims{ins, 1});
    const memory::desc weight({ins, outs}, memory::data_type::f32, memory::dims{1, ins});
    const memory::desc y({rows, outs}, memory::data_type::f32, memory::dims{outs, 1});
    const memory::desc bias_row({1, outs}, memory::data_type::f32, memory::dims{outs, 1});
    const dnnl::matmul::primitive_desc primitive(
        bias ? dnnl::matmul::desc(x, weight, bias_row, y) : dnnl::matmul::desc(x, weight, y), engine_);
    matmul_ = dnnl::matmul(primitive);
    x_ = memory(x, engine_, nullptr);
    weight_ = memory(weight, engine_, nullptr);
    y_ = memory(y, engine_, nullptr);
    arguments_ = {{DNNL_ARG_SRC, x_}, {DNNL_ARG_WEIGHTS, weight_}, {DNNL_ARG_DST, y_}};
    if (bias) {
      bias_ = memory(bias_row, engine_, nullptr);
      arguments_.insert({DNNL_ARG_BIAS, bias_});
    }
  }

  void run(float* y, const float* x, const float* weight, const float* bias) {
    // oneDNN's handles are not const; these three are only read.
    x_.set_data_handle(const_cast<float*>(x));
    weight_.set_data_handle(const_cast<float*>(weight));
    if (bias != nullptr) bias_.set_data_handle(const_cast<float*>(bias));
    y_.set_data_handle(y);
    matmul_.execute(stream_, arguments_);
    stream_.wait();
  }

 private:
  dnnl::engine engine_;
  dnnl::stream stream_;
  dnnl::matmul matmul_;
  memory x_, weight_, bias_, y_;
  std::unordered_map<int, memory> arguments_;
};

void linear_forward(float* y, const float* x, const float* weight, const float* bias, std::int64_t rows,
                    std::int64_t outs, std::int64_t ins) {
  use_one_thread();
  using Shape = std::array<std::int64_t, 4>;
  thread_local std::map<Shape, LinearForward> compiled;
  constexpr std::size_t kMostCompiled = 256;  // a generated text of growing length has many shapes
  const Shape shape = {rows, outs, ins, bias != nullptr};
  try {
    auto found = compiled.find(shape);
    if (found == compiled.end()) {
      if (compiled.size() == kMostCompiled) compiled.clear();
      found = compiled.try_emplace(shape, rows, outs, ins, bias != nullptr).first;
    }
    found->second.run(y, x, weight, bias);
  } catch (const dnnl::error& error) {
    fail(fmt::format("linear_forward of [{}, {}] x [{}, {}]", rows, ins, outs, ins), error.what());
  }
}

// The backward products go through sgemm: it packs a transposed operand faster than the matmul primitive does.
void check_sgemm(dnnl_status_t status, std::string_view what, std::int64_t rows, std::int64_t outs, std::int64_t ins) {
  if (status != dnnl_success) {
    fail(fmt::format("{} of [{}, {}] x [{}, {}]", what, rows, outs, outs, ins),
         fmt::format("status {}", static_cast<int>(status)));
  }
}

void linear_backward_weight(float* dweight, const float* dy, const float* x, std::int64_t rows, std::int64_t outs,
                            std::int64_t ins, bool accumulate) {
  use_one_thread();
  check_sgemm(dnnl_sgemm('T', 'N', outs, ins, rows, 1.0f, dy, outs, x, ins, accumulate ? 1.0f : 0.0f, dweight, ins),
              "linear_backward_weight", rows, outs, ins);
}

void linear_backward_input(float* dx, const float* dy, const float* weight, std::int64_t rows, std::int64_t outs,
                           std::int64_t ins) {
  use_one_thread();
  check_sgemm(dnnl_sgemm('N', 'N', rows, ins, outs, 1.0f, dy, outs, weight, ins, 0.0f, dx, ins),
              "linear_backward_input", rows, outs, ins);
}

}  // namespace

void put_onednn_matmul(KernelTable<float>& table) {
  table.linear_forward = linear_forward;
  table.linear_backward_weight = linear_backward_weight;
  table.linear_backward_input = linear_backward_input;
}

}  // namespace strake::kernels::cpu
