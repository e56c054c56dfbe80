#include "kernels/matmul.h"

#include <algorithm>
#include <utility>

#include "kernels/cpu/body.h"
#include "kernels/cpu/column_sums.h"
#include "kernels/elementwise.h"

#if STRAKE_ONEDNN
#include <fmt/format.h>

#include <array>
#include <map>
#include <oneapi/dnnl/dnnl.hpp>

#include "runtime/base/error.h"

// Of the OpenMP runtime that oneDNN is linked with; declared here because nothing of ours is compiled as OpenMP.
extern "C" void omp_set_num_threads(int threads);
#endif

namespace strake::kernels {
namespace reference {
namespace {

// c [m, n] += a b with a(i, k) = a[i * a_row + k * a_column] and b [inner, n]. The innermost loop runs along
// rows of b and c, a tile of b stays in cache for all rows of c, and each c(i, j) adds its terms in order of k.
template <typename T>
void add_product(T* c, const T* a, std::int64_t a_row, std::int64_t a_column, const T* b, std::int64_t m,
                 std::int64_t n, std::int64_t inner) {
  constexpr std::int64_t kTile = 64;
  for (std::int64_t k_begin = 0; k_begin < inner; k_begin += kTile) {
    const std::int64_t k_end = std::min(k_begin + kTile, inner);
    for (std::int64_t i = 0; i < m; ++i) {
      T* const c_row = c + i * n;
      for (std::int64_t k = k_begin; k < k_end; ++k) {
        const T factor = a[i * a_row + k * a_column];
        const T* const b_row = b + k * n;
        for (std::int64_t j = 0; j < n; ++j) c_row[j] += factor * b_row[j];
      }
    }
  }
}

}  // namespace

// y [rows, outs] = x [rows, ins] weight[outs, ins]^T + bias [outs]; bias may be null.
template <typename T>
void linear_forward(T* y, const T* x, const T* weight, const T* bias, std::int64_t rows, std::int64_t outs,
                    std::int64_t ins) {
  // Dot products of rows, four at a time: weight is read along its rows, as it lies.
  for (std::int64_t o = 0; o < outs; ++o) {
    const T* const w = weight + o * ins;
    const T start = bias != nullptr ? bias[o] : T(0);
    std::int64_t r = 0;
    for (; r + 4 <= rows; r += 4) {
      const T* const x0 = x + r * ins;
      const T *const x1 = x0 + ins, *const x2 = x1 + ins, *const x3 = x2 + ins;
      T sum0 = 0, sum1 = 0, sum2 = 0, sum3 = 0;
      for (std::int64_t i = 0; i < ins; ++i) {
        sum0 += x0[i] * w[i];
        sum1 += x1[i] * w[i];
        sum2 += x2[i] * w[i];
        sum3 += x3[i] * w[i];
      }
      y[r * outs + o] = sum0 + start;
      y[(r + 1) * outs + o] = sum1 + start;
      y[(r + 2) * outs + o] = sum2 + start;
      y[(r + 3) * outs + o] = sum3 + start;
    }
    for (; r < rows; ++r) {
      T sum = 0;
      for (std::int64_t i = 0; i < ins; ++i) sum += x[r * ins + i] * w[i];
      y[r * outs + o] = sum + start;
    }
  }
}

// dweight [outs, ins] (+)= dy [rows, outs]^T x [rows, ins].
template <typename T>
void linear_backward_weight(T* dweight, const T* dy, const T* x, std::int64_t rows, std::int64_t outs, std::int64_t ins,
                            bool accumulate) {
  if (!accumulate) std::fill_n(dweight, outs * ins, T(0));
  add_product(dweight, dy, 1, outs, x, outs, ins, rows);
}

// dx [rows, ins] = dy [rows, outs] weight [outs, ins].
template <typename T>
void linear_backward_input(T* dx, const T* dy, const T* weight, std::int64_t rows, std::int64_t outs,
                           std::int64_t ins) {
  std::fill_n(dx, rows * ins, T(0));
  add_product(dx, dy, outs, 1, weight, rows, ins, outs);
}

// y [rows, outs] = x [rows, ins] weight[ins, outs] + bias.
template <typename T>
void linear_forward_in_out(T* y, const T* x, const T* weight, const T* bias, std::int64_t rows, std::int64_t outs,
                           std::int64_t ins) {
  linear_backward_input(y, x, weight, rows, ins, outs);
  if (bias == nullptr) return;
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t o = 0; o < outs; ++o) y[r * outs + o] += bias[o];
  }
}

// dx [rows, ins] = dy [rows, outs] weight [ins, outs]^T: forward of the other layout.
template <typename T>
void linear_backward_input_in_out(T* dx, const T* dy, const T* weight, std::int64_t rows, std::int64_t outs,
                                  std::int64_t ins) {
  linear_forward<T>(dx, dy, weight, nullptr, rows, ins, outs);
}

}  // namespace reference

#if STRAKE_ONEDNN
// Products of f32 by oneDNN. Each thread keeps its own compiled kernels, and one thread computes: ranks, not cores, are
// the unit. Errors: DeviceError with oneDNN's status and the shape.
namespace onednn {
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

// y [rows, outs] = x [rows, ins] weight^T + bias, compiled for one shape and layout of the weight.
class CompiledForward {
 public:
  CompiledForward(std::int64_t rows, std::int64_t outs, std::int64_t ins, bool bias, WeightLayout layout)
      : engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {
    const memory::desc x({rows, ins}, memory::data_type::f32, memory::dims{ins, 1});
    const memory::desc weight({ins, outs}, memory::data_type::f32,
                              layout == WeightLayout::kOutIn ? memory::dims{1, ins} : memory::dims{outs, 1});
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

template <WeightLayout layout>
void linear_forward(float* y, const float* x, const float* weight, const float* bias, std::int64_t rows,
                    std::int64_t outs, std::int64_t ins) {
  use_one_thread();
  using Shape = std::array<std::int64_t, 4>;
  thread_local std::map<Shape, CompiledForward> compiled;
  constexpr std::size_t kMostCompiled = 256;  // a generated text of growing length has many shapes
  const Shape shape = {rows, outs, ins, bias != nullptr};
  try {
    auto found = compiled.find(shape);
    if (found == compiled.end()) {
      if (compiled.size() == kMostCompiled) compiled.clear();
      found = compiled.try_emplace(shape, rows, outs, ins, bias != nullptr, layout).first;
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

// dx [rows, ins] = dy [rows, outs] weight [ins, outs]^T.
void linear_backward_input_in_out(float* dx, const float* dy, const float* weight, std::int64_t rows, std::int64_t outs,
                                  std::int64_t ins) {
  use_one_thread();
  check_sgemm(dnnl_sgemm('N', 'T', rows, ins, outs, 1.0f, dy, outs, weight, outs, 0.0f, dx, ins),
              "linear_backward_input", rows, outs, ins);
}

}  // namespace
}  // namespace onednn
#endif

namespace cpu {

namespace {

template <typename T>
struct Products {
  decltype(&reference::linear_forward<T>) forward = reference::linear_forward<T>;
  decltype(&reference::linear_forward<T>) forward_in_out = reference::linear_forward_in_out<T>;
  decltype(&reference::linear_backward_weight<T>) backward_weight = reference::linear_backward_weight<T>;
  decltype(&reference::linear_backward_input<T>) backward_input = reference::linear_backward_input<T>;
  decltype(&reference::linear_backward_input<T>) backward_input_in_out = reference::linear_backward_input_in_out<T>;
};
template <typename T>
Products<T> products([[maybe_unused]] CpuCode code) {
#if STRAKE_ONEDNN
  if constexpr (std::is_same_v<T, float>) {
    if (code.onednn)
      return {onednn::linear_forward<WeightLayout::kOutIn>, onednn::linear_forward<WeightLayout::kInOut>,
              onednn::linear_backward_weight, onednn::linear_backward_input, onednn::linear_backward_input_in_out};
  }
#endif
  return {};
}

}  // namespace
}  // namespace cpu

namespace {

Body then(Body first, Body second) {
  return [first = std::move(first), second = std::move(second)](NativeStream native) {
    first(native);
    second(native);
  };
}

}  // namespace

Body LinearForward::on_cpu(CpuCode code) const {
  Body product = cpu::body(y.dtype(), [=, *this]<typename T>() {
    const auto products = cpu::products<T>(code);
    const auto forward = layout == WeightLayout::kOutIn ? products.forward : products.forward_in_out;
    forward(data<T>(y), data<T>(x), data<T>(weight), bias.defined() ? data<T>(bias) : nullptr, y.size(0), y.size(1),
            x.size(1));
  });
  if (!activated.defined()) return product;
  return then(std::move(product), GeluForward{.y = activated, .x = y}.on_cpu(code));
}

Body LinearBackwardWeight::on_cpu(CpuCode code) const {
  return cpu::body(dy.dtype(), [=, *this]<typename T>() {
    const bool out_in = layout == WeightLayout::kOutIn;
    // The other layout's is x^T dy: the two change places.
    const Tensor &left = out_in ? dy : x, &right = out_in ? x : dy;
    const auto backward = cpu::products<T>(code).backward_weight;
    const std::int64_t rows = dy.size(0), left_columns = left.size(1), right_columns = right.size(1);
    constexpr std::int64_t kLeastRows = 128;  // so that adding to dweight once a piece costs little
    const std::int64_t piece = cpu::rows_in_cache(left_columns + right_columns, kLeastRows);
    for (std::int64_t row = 0; row < rows; row += piece) {
      const std::int64_t count = std::min(piece, rows - row);
      const bool add = accumulate == Accumulate::kAdd || row > 0;
      backward(data<T>(dweight), data<T>(left) + row * left_columns, data<T>(right) + row * right_columns, count,
               left_columns, right_columns, add);
      if (!dbias.defined()) continue;
      cpu::column_sums.in<T>(code)(data<T>(dbias), data<T>(dy) + row * dy.size(1), count, dy.size(1), add);
    }
  });
}

Body LinearBackwardInput::on_cpu(CpuCode code) const {
  Body product = cpu::body(dy.dtype(), [=, *this]<typename T>() {
    const auto products = cpu::products<T>(code);
    const auto backward = layout == WeightLayout::kOutIn ? products.backward_input : products.backward_input_in_out;
    backward(data<T>(dx), data<T>(dy), data<T>(weight), dy.size(0), dy.size(1), dx.size(1));
  });
  if (!gelu_of.defined()) return product;
  return then(std::move(product),
              GeluBackward{.dx = dx, .dy = dx, .x = gelu_of, .dbias = dbias, .accumulate = accumulate}.on_cpu(code));
}

}  // namespace strake::kernels
