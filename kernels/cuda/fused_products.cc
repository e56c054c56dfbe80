#include "kernels/cuda/fused_products.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <iterator>

#include "kernels/cuda/column_sums.h"
#include "kernels/cuda/gelu.h"
#include "runtime/base/check.h"

namespace strake::kernels::cuda {
namespace {

using Epilogue = MatmulProblem::Epilogue;
using Kind = MatmulProblem::Kind;

// The epilogues of the product, by the one that stands for all that is wanted; the first is taken untimed.
std::vector<Epilogue> ways_of(const FusedProblem& problem) {
  using enum Epilogue;
  const bool whole = problem.bias_gradient_type == problem.product.out_type && !problem.adds_bias_gradient;
  // GELU is in the epilogue of bf16 only: products of f32 are for tests, and are not timed.
  const bool narrow = problem.product.out_type == DType::kBF16;
  switch (problem.product.epilogue) {
    case kNone:
    case kBias:
      break;
    case kBiasGradient:
      return whole ? std::vector{kBiasGradient, kNone} : std::vector{kNone};
    case kGelu:
      return narrow ? std::vector{kNone, kGelu} : std::vector{kNone};
    case kBiasGelu:
      return narrow ? std::vector{kBias, kBiasGelu} : std::vector{kBias};
    case kGeluGradient:
      return narrow ? std::vector{kNone, kGeluGradient} : std::vector{kNone};
    case kGeluAndBiasGradient:
      if (!narrow) return {kNone};
      return whole ? std::vector{kNone, kGeluGradient, kGeluAndBiasGradient} : std::vector{kNone, kGeluGradient};
  }
  return {problem.product.epilogue};
}

bool takes_gelu(Epilogue epilogue) { return epilogue == Epilogue::kGelu || epilogue == Epilogue::kBiasGelu; }
bool makes_bias_gradient(Epilogue epilogue) {
  return epilogue == Epilogue::kBiasGradient || epilogue == Epilogue::kGeluAndBiasGradient;
}

// Of the matrix that comes out of a product, and whose columns are summed: dx, or dy of a weight's gradient.
std::int64_t columns_of(const MatmulProblem& product) {
  return product.kind == Kind::kBackwardInput ? product.ins : product.outs;
}

}  // namespace

std::string FusedProblem::describe() const {
  const bool bias_gradient = makes_bias_gradient(product.epilogue);
  return fmt::format("{}{}{}", product.describe(),
                     bias_gradient && bias_gradient_type != product.out_type
                         ? fmt::format(" in {}", strake::name_of(bias_gradient_type))
                         : "",
                     bias_gradient && adds_bias_gradient ? " added" : "");
}

void FusedProducts::prepare(const FusedProblem& problem) {
  if (problems_.contains(problem)) return;
  Ways ways;
  for (const Epilogue epilogue : ways_of(problem)) {
    MatmulProblem product = problem.product;
    product.epilogue = epilogue;
    if (matmuls_.prepare(product)) ways.products.push_back(product);
  }
  STRAKE_CHECK(!ways.products.empty(), "cuBLASLt has no algorithm for " + problem.describe());
  take_applied(problem, ways);
  problems_.emplace(problem, std::move(ways));
}

std::size_t FusedProducts::workspace_bytes(const FusedProblem& problem) {
  return makes_bias_gradient(problem.product.epilogue)
             ? std::max(Matmuls::kWorkspaceBytes, column_sums_workspace_bytes(columns_of(problem.product)))
             : Matmuls::kWorkspaceBytes;
}

void FusedProducts::run(cudaStream_t stream, const FusedProblem& problem, const MatmulOperands& operands,
                        void* workspace) {
  const auto found = problems_.find(problem);
  STRAKE_CHECK(found != problems_.end(), "product " + problem.describe() + " was not planned");
  const Ways& ways = found->second;
  enqueue(stream, problem, ways.products[ways.chosen], operands, workspace);
}

void FusedProducts::enqueue(cudaStream_t stream, const FusedProblem& problem, const MatmulProblem& product,
                            const MatmulOperands& operands, void* workspace) {
  const auto& [wanted, bias_gradient_type, adds] = problem;
  MatmulOperands of_product = operands;
  const bool whole = product.epilogue == wanted.epilogue;
  if (!whole && takes_gelu(wanted.epilogue)) of_product.out = operands.gelu_of;
  matmuls_.run(stream, product, of_product, workspace);
  if (whole) return;

  const ColumnSums sums{operands.bias, bias_gradient_type, adds};
  const std::int64_t rows = wanted.rows, columns = columns_of(wanted);
  switch (wanted.epilogue) {
    case Epilogue::kGelu:
    case Epilogue::kBiasGelu:
      return gelu(stream, wanted.out_type, operands.out, operands.gelu_of, rows * columns);
    case Epilogue::kGeluGradient:
      return gelu_gradient(stream, wanted.out_type, operands.out, operands.out, operands.gelu_of, rows * columns);
    case Epilogue::kGeluAndBiasGradient:
      if (product.epilogue == Epilogue::kGeluGradient)
        return column_sums(stream, sums, wanted.out_type, operands.out, rows, columns, workspace);
      return gelu_gradient(stream, wanted.out_type, operands.out, operands.out, operands.gelu_of, rows, columns, sums,
                           workspace);
    case Epilogue::kBiasGradient: {
      const void* const dy = wanted.layout == WeightLayout::kOutIn ? operands.b : operands.a;
      return column_sums(stream, sums, wanted.type, dy, rows, columns, workspace);
    }
    case Epilogue::kNone:
    case Epilogue::kBias:
      break;
  }
  STRAKE_CHECK(false, "nothing is behind a product for " + problem.describe());
}

std::vector<std::string> FusedProducts::tune() {
  const auto is_timed = [this](const FusedProblem& problem, const Ways& ways) {
    return !deterministic_ && ways.products.size() > 1 && !ways.applied && problem.product.type != DType::kF32;
  };
  MatmulBytes bytes;
  std::size_t most_workspace_bytes = 0;
  for (const auto& [problem, ways] : problems_) {
    if (!is_timed(problem, ways)) continue;
    bytes = bytes.or_larger(MatmulBytes::of(problem.product));
    most_workspace_bytes = std::max(most_workspace_bytes, workspace_bytes(problem));
  }
  if (bytes.out == 0) return {};
  TimedStream stream;
  const MatmulScratch scratch(stream.get(), bytes, most_workspace_bytes);
  constexpr std::size_t kRounds = 25;

  std::vector<std::string> report;
  for (auto& [problem, ways] : problems_) {
    if (!is_timed(problem, ways)) continue;
    // In turn and in one go, so that all have the same clock, that of a busy GPU; each behind a write that leaves
    // nothing of the others in L2.
    std::vector<std::deque<Stopwatch>> watches(ways.products.size());
    for (std::size_t round = 0; round < kRounds; ++round) {
      for (std::size_t i = 0; i < ways.products.size(); ++i) {
        STRAKE_CUDA(cudaMemsetAsync(scratch.workspace(), 0, Matmuls::kWorkspaceBytes, stream.get()));
        Stopwatch& watch = watches[i].emplace_back();
        watch.start(stream.get());
        enqueue(stream.get(), problem, ways.products[i], scratch.operands(), scratch.workspace());
        watch.stop(stream.get());
      }
    }
    STRAKE_CUDA(cudaGetLastError());
    std::vector<double> medians_us;
    for (std::deque<Stopwatch>& of_way : watches) {
      std::vector<double> times_us;
      std::ranges::transform(of_way, std::back_inserter(times_us), [](Stopwatch& watch) { return watch.us(); });
      medians_us.push_back(median(std::move(times_us)));
    }
    ways.chosen = static_cast<std::size_t>(std::ranges::min_element(medians_us) - medians_us.begin());
    std::string line = fmt::format("{:<44} epilogue", problem.describe());
    for (std::size_t i = 0; i < medians_us.size(); ++i) {
      line += fmt::format("{} {} {:.1f} us", i == 0 ? "" : ",", name_of(ways.products[i].epilogue), medians_us[i]);
    }
    report.push_back(fmt::format("{} -> {}", line, name_of(ways.products[ways.chosen].epilogue)));
  }
  return report;
}

namespace {

std::string key_of(const FusedProblem& problem) { return "way of " + problem.describe(); }

}  // namespace

std::map<std::string, std::string> FusedProducts::choices() const {
  std::map<std::string, std::string> out;
  for (const auto& [problem, ways] : problems_) {
    if (ways.products.size() > 1) out[key_of(problem)] = name_of(ways.products[ways.chosen].epilogue);
  }
  return out;
}

void FusedProducts::apply(const std::map<std::string, std::string>& choices) {
  applied_.clear();
  if (!Matmuls::are_of_this_library(choices)) return;
  applied_ = choices;
  for (auto& [problem, ways] : problems_) take_applied(problem, ways);
}

void FusedProducts::take_applied(const FusedProblem& problem, Ways& ways) const {
  const auto chosen = applied_.find(key_of(problem));
  if (chosen == applied_.end() || deterministic_) return;
  for (std::size_t i = 0; i < ways.products.size(); ++i) {
    if (name_of(ways.products[i].epilogue) != chosen->second) continue;
    ways.chosen = i;
    ways.applied = true;
  }
}

}  // namespace strake::kernels::cuda
