#include "kernels/cuda/matmuls.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <span>
#include <string_view>

#include "kernels/cuda/test_kernels.h"
#include "runtime/base/check.h"
#include "runtime/base/error.h"
#include "runtime/device/cuda/cuda_call.h"

namespace strake::kernels::cuda {
namespace {

constexpr int kCandidates = 16;
constexpr const char* kVersionKey = "cublaslt";  // among the choices

void require(cublasStatus_t status, const char* call, const std::string& what) {
  if (status == CUBLAS_STATUS_SUCCESS) [[likely]]
    return;
  throw DeviceError(fmt::format("{} failed for {}: {}", call, what, cublasLtGetStatusString(status)));
}

cudaDataType_t cuda_type(DType type) { return type == DType::kBF16 ? CUDA_R_16BF : CUDA_R_32F; }

// cuBLASLt's column-major view of a problem: D[m, n] = op(A)[m, k] op(B)[k, n].
struct View {
  std::int64_t m, n, k;
  bool transpose_a, transpose_b;
  std::int64_t a_rows, a_columns, b_rows, b_columns;  // as stored, column-major
};

View view_of(const MatmulProblem& p) {
  const bool in_out = p.layout == WeightLayout::kInOut;
  switch (p.kind) {
    case MatmulProblem::Kind::kForward:  // y^T = (weight^T)^T x^T
      if (in_out) return {p.outs, p.rows, p.ins, false, false, p.outs, p.ins, p.ins, p.rows};
      return {p.outs, p.rows, p.ins, true, false, p.ins, p.outs, p.ins, p.rows};
    case MatmulProblem::Kind::kBackwardInput:  // dx^T = weight^T dy^T
      if (in_out) return {p.ins, p.rows, p.outs, true, false, p.outs, p.ins, p.outs, p.rows};
      return {p.ins, p.rows, p.outs, false, false, p.ins, p.outs, p.outs, p.rows};
    case MatmulProblem::Kind::kBackwardWeight:  // dweight^T = x^T (dy^T)^T; kInOut: dy^T (x^T)^T
      if (in_out) return {p.outs, p.ins, p.rows, false, true, p.outs, p.rows, p.ins, p.rows};
      return {p.ins, p.outs, p.rows, false, true, p.ins, p.rows, p.outs, p.rows};
  }
  STRAKE_CHECK(false, "no such product");
  return {};
}

std::string to_hex(const cublasLtMatmulAlgo_t& algorithm) {
  std::string hex;
  for (const unsigned char byte : std::span(reinterpret_cast<const unsigned char*>(&algorithm), sizeof algorithm)) {
    hex += fmt::format("{:02x}", byte);
  }
  return hex;
}

std::optional<cublasLtMatmulAlgo_t> from_hex(std::string_view hex) {
  cublasLtMatmulAlgo_t algorithm{};
  if (hex.size() != 2 * sizeof algorithm) return std::nullopt;
  auto* bytes = reinterpret_cast<unsigned char*>(&algorithm);
  for (std::size_t i = 0; i < sizeof algorithm; ++i) {
    const char* digits = hex.data() + 2 * i;
    const auto [end, error] = std::from_chars(digits, digits + 2, bytes[i], 16);
    if (error != std::errc() || end != digits + 2) return std::nullopt;
  }
  return algorithm;
}

}  // namespace

std::string MatmulProblem::describe() const {
  constexpr const char* kKinds[] = {"forward", "d_input", "d_weight"};
  constexpr const char* kEpilogues[] = {"", " bias", " d_bias"};
  return fmt::format("{} {}x{}x{} {}->{}{}{}{}{}", kKinds[static_cast<int>(kind)], rows, ins, outs, name_of(type),
                     name_of(out_type), kEpilogues[static_cast<int>(epilogue)], accumulate ? " add" : "",
                     layout == WeightLayout::kInOut ? " in_out" : "",
                     multiprocessors > 0 ? fmt::format(" on {} SMs", multiprocessors) : "");
}

struct Matmuls::Prepared {
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, d = nullptr;
  std::vector<cublasLtMatmulHeuristicResult_t> candidates;  // best guess first
  cublasLtMatmulAlgo_t algorithm{};
  bool applied = false;            // and not to be timed
  const void* bias_set = nullptr;  // the descriptor holds the address of the bias

  void set_bias(const void* bias, const MatmulProblem& problem) {
    if (bias == bias_set) return;
    require(cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias),
            "cublasLtMatmulDescSetAttribute", problem.describe());
    bias_set = bias;
  }

  ~Prepared() {
    if (d != nullptr) cublasLtMatrixLayoutDestroy(d);
    if (b != nullptr) cublasLtMatrixLayoutDestroy(b);
    if (a != nullptr) cublasLtMatrixLayoutDestroy(a);
    if (operation != nullptr) cublasLtMatmulDescDestroy(operation);
  }
};

Matmuls::Matmuls() { require(cublasLtCreate(&handle_), "cublasLtCreate", "this GPU"); }
Matmuls::~Matmuls() {
  problems_.clear();
  cublasLtDestroy(handle_);
}

Matmuls::Prepared* Matmuls::find(const MatmulProblem& problem) {
  const auto found = problems_.find(problem);
  return found == problems_.end() ? nullptr : found->second.get();
}

bool Matmuls::prepare(const MatmulProblem& problem) {
  if (Prepared* known = find(problem)) return !known->candidates.empty();
  const std::string name = problem.describe();
  const View view = view_of(problem);
  auto prepared = std::make_unique<Prepared>();
  Prepared& p = *prepared;

  // f32 operands are multiplied in f32, not TF32: parity with the CPU device.
  require(cublasLtMatmulDescCreate(&p.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate", name);
  const auto set = [&](cublasLtMatmulDescAttributes_t attribute, const auto& value) {
    require(cublasLtMatmulDescSetAttribute(p.operation, attribute, &value, sizeof value),
            "cublasLtMatmulDescSetAttribute", name);
  };
  set(CUBLASLT_MATMUL_DESC_TRANSA, view.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(CUBLASLT_MATMUL_DESC_TRANSB, view.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
  if (problem.epilogue != MatmulProblem::Epilogue::kNone) {
    // The gradient of a bias is the sum of dy over rows, which is B or A.
    const cublasLtEpilogue_t gradient =
        problem.layout == WeightLayout::kOutIn ? CUBLASLT_EPILOGUE_BGRADB : CUBLASLT_EPILOGUE_BGRADA;
    set(CUBLASLT_MATMUL_DESC_EPILOGUE,
        problem.epilogue == MatmulProblem::Epilogue::kBias ? CUBLASLT_EPILOGUE_BIAS : gradient);
    set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, cuda_type(problem.out_type));
  }
  // Of the heuristic, and of every launch: part of the descriptor, like what is computed.
  if (problem.multiprocessors > 0)
    set(CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET, static_cast<std::int32_t>(problem.multiprocessors));
  const auto layout = [&](cublasLtMatrixLayout_t& target, DType type, std::int64_t rows, std::int64_t columns) {
    require(cublasLtMatrixLayoutCreate(&target, cuda_type(type), static_cast<std::uint64_t>(rows),
                                       static_cast<std::uint64_t>(columns), rows),
            "cublasLtMatrixLayoutCreate", name);
  };
  layout(p.a, problem.type, view.a_rows, view.a_columns);
  layout(p.b, problem.type, view.b_rows, view.b_columns);
  layout(p.d, problem.out_type, view.m, view.n);

  cublasLtMatmulPreference_t preference = nullptr;
  require(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate", name);
  const std::size_t workspace_bytes = kWorkspaceBytes;
  cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_bytes,
                                       sizeof workspace_bytes);
  std::array<cublasLtMatmulHeuristicResult_t, kCandidates> results{};
  int found = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(handle_, p.operation, p.a, p.b, p.d, p.d, preference,
                                                               kCandidates, results.data(), &found);
  cublasLtMatmulPreferenceDestroy(preference);
  if (status == CUBLAS_STATUS_SUCCESS) {
    for (int i = 0; i < found; ++i) {
      if (results[static_cast<std::size_t>(i)].state == CUBLAS_STATUS_SUCCESS)
        p.candidates.push_back(results[static_cast<std::size_t>(i)]);
    }
  }
  const bool supported = !p.candidates.empty();
  if (supported) {
    p.algorithm = p.candidates.front().algo;
    take_applied(problem, p);
  }
  problems_.emplace(problem, std::move(prepared));
  return supported;
}

void Matmuls::run(cudaStream_t stream, const MatmulProblem& problem, const void* a, const void* b, void* out,
                  void* bias, void* workspace) {
  Prepared* prepared = find(problem);
  STRAKE_CHECK(prepared != nullptr, "product " + problem.describe() + " was not planned");
  const cublasStatus_t status = enqueue(stream, problem, *prepared, a, b, out, bias, workspace);
  if (status != CUBLAS_STATUS_SUCCESS) [[unlikely]]
    require(status, "cublasLtMatmul", problem.describe());
}

cublasStatus_t Matmuls::enqueue(cudaStream_t stream, const MatmulProblem& problem, Prepared& prepared, const void* a,
                                const void* b, void* out, void* bias, void* workspace) {
  if (problem.epilogue != MatmulProblem::Epilogue::kNone) prepared.set_bias(bias, problem);
  const float one = 1, beta = problem.accumulate ? 1.0f : 0.0f;
  return cublasLtMatmul(handle_, prepared.operation, &one, a, prepared.a, b, prepared.b, &beta, out, prepared.d, out,
                        prepared.d, &prepared.algorithm, workspace, kWorkspaceBytes, stream);
}

std::map<std::string, std::string> Matmuls::choices() const {
  std::map<std::string, std::string> out;
  for (const auto& [problem, prepared] : problems_) {
    if (!prepared->candidates.empty()) out[problem.describe()] = to_hex(prepared->algorithm);
  }
  if (!out.empty()) out[kVersionKey] = std::to_string(cublasLtGetVersion());
  return out;
}

void Matmuls::apply(const std::map<std::string, std::string>& choices) {
  applied_.clear();
  // The bytes of an algorithm mean something to the version that made them only.
  const auto version = choices.find(kVersionKey);
  if (version == choices.end() || version->second != std::to_string(cublasLtGetVersion())) return;
  applied_ = choices;
  for (const auto& [problem, prepared] : problems_) {
    if (!prepared->candidates.empty()) take_applied(problem, *prepared);
  }
}

void Matmuls::take_applied(const MatmulProblem& problem, Prepared& prepared) {
  const auto chosen = applied_.find(problem.describe());
  if (chosen == applied_.end()) return;
  const std::optional<cublasLtMatmulAlgo_t> algorithm = from_hex(chosen->second);
  if (!algorithm.has_value()) return;
  // An epilogue is checked with its bias: any well aligned address will do.
  if (problem.epilogue != MatmulProblem::Epilogue::kNone)
    prepared.set_bias(reinterpret_cast<const void*>(std::uintptr_t{4096}), problem);
  cublasLtMatmulHeuristicResult_t result{};
  const cublasStatus_t status = cublasLtMatmulAlgoCheck(handle_, prepared.operation, prepared.a, prepared.b, prepared.d,
                                                        prepared.d, &*algorithm, &result);
  if (status != CUBLAS_STATUS_SUCCESS || result.workspaceSize > kWorkspaceBytes) return;
  prepared.algorithm = *algorithm;
  prepared.applied = true;
}

namespace {

// Device memory for the duration of tuning.
class Scratch {
 public:
  explicit Scratch(std::size_t size_bytes) {
    STRAKE_CUDA(cudaMalloc(&memory_, std::max<std::size_t>(size_bytes, 256)));
  }
  ~Scratch() { STRAKE_LOG_CUDA(cudaFree(memory_)); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  void* get() const { return memory_; }

 private:
  void* memory_ = nullptr;
};

// A stream on which one thing after the other is timed.
class TimedStream {
 public:
  TimedStream() {
    STRAKE_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    STRAKE_CUDA(cudaEventCreate(&begin_));
    STRAKE_CUDA(cudaEventCreate(&end_));
  }
  ~TimedStream() {
    STRAKE_LOG_CUDA(cudaEventDestroy(begin_));
    STRAKE_LOG_CUDA(cudaEventDestroy(end_));
    STRAKE_LOG_CUDA(cudaStreamDestroy(stream_));
  }
  TimedStream(const TimedStream&) = delete;
  TimedStream& operator=(const TimedStream&) = delete;

  cudaStream_t get() const { return stream_; }
  void start() { STRAKE_CUDA(cudaEventRecord(begin_, stream_)); }
  double stop_us() {
    STRAKE_CUDA(cudaEventRecord(end_, stream_));
    STRAKE_CUDA(cudaEventSynchronize(end_));
    float milliseconds = 0;
    STRAKE_CUDA(cudaEventElapsedTime(&milliseconds, begin_, end_));
    return static_cast<double>(milliseconds) * 1e3;
  }

 private:
  cudaStream_t stream_ = nullptr;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

}  // namespace

std::vector<std::string> Matmuls::tune() {
  // f32 is for tests: the first heuristic will do.
  const auto is_timed = [](const MatmulProblem& problem, const Prepared& prepared) {
    return !prepared.candidates.empty() && !prepared.applied && problem.type != DType::kF32;
  };
  const auto bytes = [](DType type, std::int64_t rows, std::int64_t columns) {
    return static_cast<std::size_t>(rows * columns) * (type == DType::kBF16 ? 2 : 4);
  };
  std::size_t a_bytes = 0, b_bytes = 0, d_bytes = 0, bias_bytes = 0;
  for (const auto& [problem, prepared] : problems_) {
    if (!is_timed(problem, *prepared)) continue;
    const View view = view_of(problem);
    a_bytes = std::max(a_bytes, bytes(problem.type, view.a_rows, view.a_columns));
    b_bytes = std::max(b_bytes, bytes(problem.type, view.b_rows, view.b_columns));
    d_bytes = std::max(d_bytes, bytes(problem.out_type, view.m, view.n));
    bias_bytes = std::max(bias_bytes, bytes(problem.out_type, problem.outs, 1));
  }
  if (d_bytes == 0) return {};
  const Scratch a(a_bytes), b(b_bytes), d(d_bytes), bias(bias_bytes), workspace(kWorkspaceBytes);
  TimedStream stream;
  // Zeros multiply faster than data.
  fill_random(stream.get(), a.get(), a_bytes / 2, 1);
  fill_random(stream.get(), b.get(), b_bytes / 2, 2);
  STRAKE_CUDA(cudaGetLastError());

  std::vector<std::string> report;
  for (const auto& [problem, prepared] : problems_) {
    if (!is_timed(problem, *prepared)) continue;
    const auto enqueue_once = [&, &p = problem, &to = *prepared] {
      return enqueue(stream.get(), p, to, a.get(), b.get(), d.get(), bias.get(), workspace.get());
    };
    double first_us = 0, best_us = 0;
    cublasLtMatmulAlgo_t best = prepared->algorithm;
    for (std::size_t i = 0; i < prepared->candidates.size(); ++i) {
      prepared->algorithm = prepared->candidates[i].algo;
      if (enqueue_once() != CUBLAS_STATUS_SUCCESS) continue;  // not a choice here; and a warm-up
      constexpr int kRepeats = 5;
      std::array<double, kRepeats> times_us{};
      for (double& time_us : times_us) {
        stream.start();
        require(enqueue_once(), "cublasLtMatmul", problem.describe());
        time_us = stream.stop_us();
      }
      std::sort(times_us.begin(), times_us.end());
      const double median_us = times_us[kRepeats / 2];
      if (i == 0) first_us = median_us;
      if (best_us == 0 || median_us < best_us) {
        best_us = median_us;
        best = prepared->algorithm;
      }
    }
    prepared->algorithm = best;
    const View view = view_of(problem);
    const double flops = 2.0 * static_cast<double>(view.m) * static_cast<double>(view.n) * static_cast<double>(view.k);
    report.push_back(fmt::format("{:<44} {:9.1f} us {:6.0f} TFLOP/s -> {:9.1f} us {:6.0f} TFLOP/s", problem.describe(),
                                 first_us, first_us > 0 ? flops / first_us / 1e6 : 0.0, best_us,
                                 best_us > 0 ? flops / best_us / 1e6 : 0.0));
  }
  return report;
}

}  // namespace strake::kernels::cuda
