#include "kernels/cuda/matmuls.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <span>
#include <string_view>

#include "kernels/cuda/test_kernels.h"
#include "kernels/cuda/timed_stream.h"
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

bool keeps_or_reads_gelu_of(MatmulProblem::Epilogue epilogue) { return epilogue >= MatmulProblem::Epilogue::kGelu; }

bool has_bias(MatmulProblem::Epilogue epilogue) {
  using enum MatmulProblem::Epilogue;
  return epilogue == kBias || epilogue == kBiasGradient || epilogue == kBiasGelu || epilogue == kGeluAndBiasGradient;
}

cublasLtEpilogue_t epilogue_of(const MatmulProblem& problem) {
  switch (problem.epilogue) {
    case MatmulProblem::Epilogue::kNone:
      return CUBLASLT_EPILOGUE_DEFAULT;
    case MatmulProblem::Epilogue::kBias:
      return CUBLASLT_EPILOGUE_BIAS;
    case MatmulProblem::Epilogue::kBiasGradient:  // the sum of dy over rows, which is B or A
      return problem.layout == WeightLayout::kOutIn ? CUBLASLT_EPILOGUE_BGRADB : CUBLASLT_EPILOGUE_BGRADA;
    case MatmulProblem::Epilogue::kGelu:  // of the tanh form, like ours
      return CUBLASLT_EPILOGUE_GELU_AUX;
    case MatmulProblem::Epilogue::kBiasGelu:
      return CUBLASLT_EPILOGUE_GELU_AUX_BIAS;
    case MatmulProblem::Epilogue::kGeluGradient:
      return CUBLASLT_EPILOGUE_DGELU;
    case MatmulProblem::Epilogue::kGeluAndBiasGradient:
      return CUBLASLT_EPILOGUE_DGELU_BGRAD;
  }
  STRAKE_CHECK(false, "no such epilogue");
  return CUBLASLT_EPILOGUE_DEFAULT;
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

std::string_view name_of(MatmulProblem::Epilogue epilogue) {
  constexpr std::string_view kNames[] = {"none", "bias", "d_bias", "gelu", "bias gelu", "d_gelu", "d_gelu d_bias"};
  return kNames[static_cast<int>(epilogue)];
}

std::string MatmulProblem::describe() const {
  constexpr const char* kKinds[] = {"forward", "d_input", "d_weight"};
  return fmt::format("{} {}x{}x{} {}->{}{}{}{}{}", kKinds[static_cast<int>(kind)], rows, ins, outs,
                     strake::name_of(type), strake::name_of(out_type),
                     epilogue == Epilogue::kNone ? "" : fmt::format(" {}", name_of(epilogue)), accumulate ? " add" : "",
                     layout == WeightLayout::kInOut ? " in_out" : "",
                     multiprocessors > 0 ? fmt::format(" on {} SMs", multiprocessors) : "");
}

MatmulBytes MatmulBytes::of(const MatmulProblem& problem) {
  const View view = view_of(problem);
  const auto bytes = [](DType type, std::int64_t rows, std::int64_t columns) {
    return static_cast<std::size_t>(rows * columns) * size_bytes(type);
  };
  return {.a = bytes(problem.type, view.a_rows, view.a_columns),
          .b = bytes(problem.type, view.b_rows, view.b_columns),
          .out = bytes(problem.out_type, view.m, view.n),
          .bias = bytes(DType::kF32, std::max(problem.ins, problem.outs), 1),
          .gelu_of = keeps_or_reads_gelu_of(problem.epilogue) ? bytes(problem.out_type, view.m, view.n) : 0};
}

MatmulBytes MatmulBytes::or_larger(const MatmulBytes& other) const {
  return {.a = std::max(a, other.a),
          .b = std::max(b, other.b),
          .out = std::max(out, other.out),
          .bias = std::max(bias, other.bias),
          .gelu_of = std::max(gelu_of, other.gelu_of)};
}

struct Matmuls::Prepared {
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, d = nullptr;
  std::vector<cublasLtMatmulHeuristicResult_t> candidates;  // best guess first
  cublasLtMatmulAlgo_t algorithm{};
  bool applied = false;  // and not to be timed
  // The descriptor holds the addresses of what the epilogue reads and writes.
  const void *bias_set = nullptr, *gelu_of_set = nullptr;

  void set_epilogue(const MatmulProblem& problem, const void* bias, const void* gelu_of) {
    const auto set = [&](const void*& held, const void* pointer, cublasLtMatmulDescAttributes_t attribute) {
      if (pointer == held) return;
      require(cublasLtMatmulDescSetAttribute(operation, attribute, &pointer, sizeof pointer),
              "cublasLtMatmulDescSetAttribute", problem.describe());
      held = pointer;
    };
    if (has_bias(problem.epilogue)) set(bias_set, bias, CUBLASLT_MATMUL_DESC_BIAS_POINTER);
    if (keeps_or_reads_gelu_of(problem.epilogue)) set(gelu_of_set, gelu_of, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER);
  }
  // For checks, which look at the addresses: any well aligned ones will do.
  void set_some_epilogue(const MatmulProblem& problem) {
    const auto* const some = reinterpret_cast<const void*>(std::uintptr_t{4096});
    set_epilogue(problem, some, some);
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
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue_of(problem));
    set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, cuda_type(problem.out_type));
  }
  if (keeps_or_reads_gelu_of(problem.epilogue)) {
    set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, view.m);
    p.set_some_epilogue(problem);
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

void Matmuls::run(cudaStream_t stream, const MatmulProblem& problem, const MatmulOperands& operands, void* workspace) {
  Prepared* prepared = find(problem);
  STRAKE_CHECK(prepared != nullptr, "product " + problem.describe() + " was not planned");
  const cublasStatus_t status = enqueue(stream, problem, *prepared, operands, workspace);
  if (status != CUBLAS_STATUS_SUCCESS) [[unlikely]]
    require(status, "cublasLtMatmul", problem.describe());
}

cublasStatus_t Matmuls::enqueue(cudaStream_t stream, const MatmulProblem& problem, Prepared& prepared,
                                const MatmulOperands& operands, void* workspace) {
  prepared.set_epilogue(problem, operands.bias, operands.gelu_of);
  const float one = 1, beta = problem.accumulate ? 1.0f : 0.0f;
  return cublasLtMatmul(handle_, prepared.operation, &one, operands.a, prepared.a, operands.b, prepared.b, &beta,
                        operands.out, prepared.d, operands.out, prepared.d, &prepared.algorithm, workspace,
                        kWorkspaceBytes, stream);
}

std::map<std::string, std::string> Matmuls::choices() const {
  std::map<std::string, std::string> out;
  for (const auto& [problem, prepared] : problems_) {
    if (!prepared->candidates.empty()) out[problem.describe()] = to_hex(prepared->algorithm);
  }
  if (!out.empty()) out[kVersionKey] = std::to_string(cublasLtGetVersion());
  return out;
}

bool Matmuls::are_of_this_library(const std::map<std::string, std::string>& choices) {
  const auto version = choices.find(kVersionKey);
  return version != choices.end() && version->second == std::to_string(cublasLtGetVersion());
}

void Matmuls::apply(const std::map<std::string, std::string>& choices) {
  applied_.clear();
  // The bytes of an algorithm mean something to the version that made them only.
  if (!are_of_this_library(choices)) return;
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
  prepared.set_some_epilogue(problem);
  cublasLtMatmulHeuristicResult_t result{};
  const cublasStatus_t status = cublasLtMatmulAlgoCheck(handle_, prepared.operation, prepared.a, prepared.b, prepared.d,
                                                        prepared.d, &*algorithm, &result);
  if (status != CUBLAS_STATUS_SUCCESS || result.workspaceSize > kWorkspaceBytes) return;
  prepared.algorithm = *algorithm;
  prepared.applied = true;
}

// Zeros multiply faster than data.
MatmulScratch::MatmulScratch(cudaStream_t stream, const MatmulBytes& bytes, std::size_t workspace_bytes)
    : a_(bytes.a),
      b_(bytes.b),
      out_(bytes.out),
      bias_(bytes.bias),
      gelu_of_(bytes.gelu_of),
      workspace_(workspace_bytes) {
  fill_random(stream, a_.get(), bytes.a / 2, 1);
  fill_random(stream, b_.get(), bytes.b / 2, 2);
  fill_random(stream, bias_.get(), bytes.bias / 2, 3);
  fill_random(stream, gelu_of_.get(), bytes.gelu_of / 2, 4);
  STRAKE_CUDA(cudaGetLastError());
}

MatmulOperands MatmulScratch::operands() const {
  return {.a = a_.get(), .b = b_.get(), .out = out_.get(), .bias = bias_.get(), .gelu_of = gelu_of_.get()};
}

std::vector<std::string> Matmuls::tune() {
  // f32 is for tests: the first heuristic will do.
  const auto is_timed = [](const MatmulProblem& problem, const Prepared& prepared) {
    return !prepared.candidates.empty() && !prepared.applied && problem.type != DType::kF32;
  };
  MatmulBytes bytes;
  for (const auto& [problem, prepared] : problems_) {
    if (is_timed(problem, *prepared)) bytes = bytes.or_larger(MatmulBytes::of(problem));
  }
  if (bytes.out == 0) return {};
  TimedStream stream;
  const MatmulScratch scratch(stream.get(), bytes, kWorkspaceBytes);

  std::vector<std::string> report;
  for (const auto& [problem, prepared] : problems_) {
    if (!is_timed(problem, *prepared)) continue;
    const auto enqueue_once = [&, &p = problem, &to = *prepared] {
      return enqueue(stream.get(), p, to, scratch.operands(), scratch.workspace());
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
